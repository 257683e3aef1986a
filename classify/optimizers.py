"""The optimisers of the study, and which parameters their weight decay is on."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Adam, Optimizer

OPTIMIZERS = ("sgd", "adam")
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # _NormBase: batch and instance normalisation


def check_optimizer(name: str) -> None:
    """Raise ValueError for a name that is not in `OPTIMIZERS`."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name!r} is not one of {', '.join(OPTIMIZERS)}")


def make_optimizer(
    model: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float,
    norm_weight_decay: bool = True,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """The optimiser of all parameters of `model`; `momentum` and `nesterov` are SGD's.

    Adam's weight decay is part of the gradient, as in the study (L2, not AdamW's).
    """
    check_optimizer(name)
    groups = parameter_groups(model, weight_decay, norm_weight_decay=norm_weight_decay)
    if name == "adam":
        return Adam(groups, lr, fused=True)
    return SGD(groups, lr, momentum, nesterov=nesterov, fused=True)  # fused: one pass over the weights


def parameter_groups(model: nn.Module, weight_decay: float, *, norm_weight_decay: bool) -> list[dict]:
    """Every parameter once, in one group, or in two where normalisation layers and biases are spared the decay."""
    parameters = list(model.parameters())
    if norm_weight_decay:
        return [{"params": parameters, "weight_decay": weight_decay}]
    spared = set()
    for module in model.modules():
        if isinstance(module, _NORMS):
            spared |= {id(p) for p in module.parameters(recurse=False)}
        elif getattr(module, "bias", None) is not None:  # what PyTorch's layers add; of ours, none has another use
            spared.add(id(module.bias))
    groups = [
        {"params": [p for p in parameters if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
