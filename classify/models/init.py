"""Random initialisation that fits the widths a network has now."""

from torch import nn


def initialise(
    model: nn.Module, *, gamma: float = 1.0, hidden_gamma: float = 1.0, linear_std: float | None = None
) -> None:
    """Convolutions normal with std sqrt(2 / (k * k * out)), BatchNorm `gamma` and beta 0; linear layers as PyTorch.

    He et al., ICCV 2015 (arXiv 1502.01852), as in the released code of the study. A pruned architecture
    that is trained from scratch needs it after the cut: `out` is the narrow width. `hidden_gamma` is that of a
    BatchNorm between linear layers. `linear_std`: linear weights normal with this std, biases zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
            if module.affine:
                nn.init.constant_(module.weight, hidden_gamma if isinstance(module, nn.BatchNorm1d) else gamma)
        elif isinstance(module, nn.Linear):
            if linear_std is None:
                module.reset_parameters()
                continue
            nn.init.normal_(module.weight, 0, linear_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_glorot(model: nn.Module) -> None:
    """Weights normal with std sqrt(2 / (fan_in + fan_out)), biases zero: Glorot & Bengio, AISTATS 2010."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
