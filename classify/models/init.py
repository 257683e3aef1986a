"""Random initialisation that fits the widths a network has now."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Convolutions normal with std sqrt(2 / (k * k * out)), BatchNorm gamma 1, beta 0; linear layers as PyTorch.

    He et al., ICCV 2015 (arXiv 1502.01852), as in the released code of the study. A pruned architecture
    that is trained from scratch needs it after the cut: `out` is the narrow width.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Linear):
            module.reset_parameters()
