"""The optimisers of the study, and which parameters their weight decay is on."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Adam, Optimizer
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from classify.settings import TrainSettings

ParameterGroup = dict[str, float | list[nn.Parameter]]  # as PyTorch's optimisers take them: "params" and "weight_decay"
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # _NormBase: batch and instance normalisation


def make_optimizer(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """The optimiser of all parameters of `model`.

    Adam's weight decay is part of the gradient, as in the study (L2, not AdamW's).
    """
    groups = parameter_groups(model, settings.weight_decay, norm_weight_decay=settings.norm_weight_decay)
    if settings.optimizer == "adam":
        return Adam(groups, settings.lr, fused=True)
    return fused_sgd(groups, settings.lr, settings.momentum, nesterov=settings.nesterov)


def fused_sgd(groups: ParamsT, lr: float, momentum: float, *, weight_decay: float = 0.0, nesterov: bool = False) -> SGD:
    """SGD in one pass over the weights; its momentum buffers are 0 from the start.

    PyTorch allocates them in the first step, and leaves in them what was in memory where a GradScaler skips that one.
    From 0 the first step is the same: momentum * 0 + gradient. Call it once the weights have their memory format.
    """
    optimizer = _FusedSGD(groups, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)
    for group in optimizer.param_groups if momentum else ():
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


class _FusedSGD(SGD):
    """SGD that shows the fused operator each weight as it lies in memory.

    On a CPU the operator copies a weight in channels-last, its gradient and its momentum, and copies two of them back.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            parts = [_as_they_lie(p, p.grad, self.state[p].get("momentum_buffer")) for p in weights]
            params, grads, buffers = (list(tensors) for tensors in zip(*parts, strict=True)) if parts else ([], [], [])
            sgd(
                params,
                grads,
                buffers,
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                **{key: group[key] for key in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")},
            )


def _as_they_lie(weight: Tensor, grad: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Views of them that are contiguous, where they are channels-last."""
    if grad.stride() != weight.stride():  # the operator goes through memory as it lies and would add the wrong values
        grad = torch.empty_like(weight).copy_(grad)
    tensors = [weight, grad] if buffer is None else [weight, grad, buffer]
    if weight.dim() != 4 or not all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        return weight, grad, buffer
    return _rows(weight), _rows(grad), None if buffer is None else _rows(buffer)


def _rows(stored: Tensor) -> Tensor:
    return stored.permute(0, 2, 3, 1)


def parameter_groups(model: nn.Module, weight_decay: float, *, norm_weight_decay: bool) -> list[ParameterGroup]:
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
    groups: list[ParameterGroup] = [
        {"params": [p for p in parameters if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
