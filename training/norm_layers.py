"""A normalisation is one layer, whatever it wraps: what replaces it keeps the activation that is inside.

timm's BatchNormAct2d, for one, is a BatchNorm2d whose children, a dropout and an activation, are applied to what it has
normalised. Detectron2's and PyTorch's conversions know nothing of them.
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import Refusal
from pruning.graph.layers import ScatterOutputs

Norm = TypeVar("Norm", bound=nn.Module)


class ThenChildren(nn.Module):
    """Mixin: the layer's children are applied, in their order, to what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        for child in self.children():
            y = child(y)
        return y


_WITH_CHILDREN: dict[type, type] = {}


def take_children(replacement: Norm, norm: _BatchNorm) -> Norm:
    """`replacement`, changed in place to apply the children of the BatchNorm that it replaces; as it is without any.

    ValueError if `norm` does something else with its children than to apply them, in order, to what it normalised.
    """
    children = dict(norm.named_children())
    if not children:
        return replacement
    _check_order(norm)
    cls = type(replacement)
    if cls not in _WITH_CHILDREN:
        _WITH_CHILDREN[cls] = type(f"{cls.__name__}ThenChildren", (ThenChildren, cls), {})
    replacement.__class__ = _WITH_CHILDREN[cls]
    for name, child in children.items():
        replacement.add_module(name, child)
    return replacement


def _check_order(norm: _BatchNorm) -> None:
    """ValueError unless the layer is its normalisation and then its children, in evaluation mode."""
    copied = copy.deepcopy(norm).eval()
    for tensor, value in (
        (copied.running_mean, 0.3),
        (copied.running_var, 2.0),
        (copied.weight, 0.7),
        (copied.bias, -0.2),
    ):  # with those of a fresh layer an activation in front could look like one behind
        if tensor is not None:
            tensor.data.fill_(value)
    device = next((t.device for t in copied.state_dict().values()), None)
    x = torch.linspace(-3, 3, 4 * norm.num_features, device=device).view(2, -1, 2, 1)
    with torch.no_grad():
        mean, var = copied.running_mean, copied.running_var
        y = F.batch_norm(x, mean, var, copied.weight, copied.bias, training=mean is None, eps=norm.eps)
        for child in copied.children():
            y = child(y)
        whole = copied(x.clone())
    if isinstance(norm, ScatterOutputs):
        whole = whole[:, norm.outputs]
    if not torch.allclose(y, whole, rtol=1e-4, atol=1e-5):
        inside = ", ".join(name for name, _ in norm.named_children())
        raise Refusal(
            f"{type(norm).__name__} is a BatchNorm that does not apply what it holds ({inside}) after normalising, so"
            " it can be neither frozen nor replaced by another normalisation; only norm 'BN' with freeze_at 0 keeps it"
        )
