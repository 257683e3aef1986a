"""Why channels that pass through an operation or a layer cannot be removed, if so."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from pruning.graph.coupling import Reached, slices_channels
from pruning.graph.layers import LAYERS, is_depthwise

if TYPE_CHECKING:
    import torch_pruning as tp

_KNOWN = nn.Conv2d | nn.Linear | _BatchNorm | nn.PReLU | nn.Parameter
Named = nn.Module | nn.Parameter
MIXED = "its channels mix on their way to other layers"


def obstacle(reached: Reached, names: Mapping[Named, str], model: nn.Module) -> str | None:
    """One clause about the operation, or None; `names` of modules and parameters of `model`."""
    node, module = reached.node, reached.node.module
    # Each filter of a grouped convolution reads the channels of its own group. Every group would have to lose as many,
    # inputs and outputs, which a ranking of single channels does not see to.
    if isinstance(module, nn.Conv2d) and module.groups > 1 and not is_depthwise(module):
        return f"{names[module]} is a grouped convolution"
    if module in names:
        if not isinstance(module, _KNOWN):
            return f"{names[module]} is a {type(module).__name__}"
        found = _of_parameter(module, names[module], model) if isinstance(module, nn.Parameter) else _of_layer(module)
        if found:
            return f"{names[module]} {found}"
    if slices_channels(node):
        return "its channels are sliced apart"
    if reached.mixed:
        return MIXED
    return _padding(node)


def _of_layer(layer: nn.Module) -> str | None:
    """Why it is not enough to cut this layer's weight, bias and statistics, as surgery does; None if it is."""
    if isinstance(layer, _BatchNorm | nn.PReLU):
        tensors = [*layer.named_parameters(), *layer.named_buffers()]
        others = sorted(name for name, tensor in tensors if "." in name and tensor.numel() > 1)
        return f"wraps a layer with tensors of its own ({', '.join(others)})" if others else None
    if isinstance(layer, LAYERS):
        return None  # the caller says what they do
    # A weight that is no tensor of the layer's own is computed from others (weight normalisation and other
    # parametrisations); what the cut put in its place would be computed anew.
    own = dict([*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)])
    if "weight" not in own:
        return "computes its weight from others"
    others = sorted(name for name, tensor in own.items() if name not in ("weight", "bias") and tensor.numel() > 1)
    if others:
        return f"has {', '.join(others)} besides weight and bias"
    if type(layer).forward not in (nn.Conv2d.forward, nn.Linear.forward) and not _uses_weights_one_by_one(layer):
        return f"is a {type(layer).__name__}, which does not use each of its weights as it is"
    return None


@torch.no_grad()
def _uses_weights_one_by_one(layer: nn.Module) -> bool:
    """Does a weight matter only to its own output, and not where its input is zero? (Not if they are standardised.)"""
    # Tried out, since a subclass may do anything with its weights: standardise each filter over its inputs, divide by a
    # norm over all filters. Input 0 is zero and all others are one.
    twin = copy.deepcopy(layer).double().eval()
    assert isinstance(twin, nn.Conv2d | nn.Linear)
    if isinstance(twin, nn.Linear):
        x = torch.ones(1, twin.in_features, dtype=torch.double)
    else:
        # one output pixel at least, however large the dilated kernel: (k - 1) * d + 1 is what it spans
        side = max((k - 1) * d + 1 for k, d in zip(twin.kernel_size, twin.dilation, strict=True))
        x = torch.ones(1, twin.in_channels, side, side, dtype=torch.double)
    x = x.to(twin.weight.device)
    x[:, 0] = 0
    before = twin(x)
    # the weights that read input 0: of a depthwise convolution (C, 1, kh, kw) the first filter, else the first column
    column = 0 if is_depthwise(twin) else slice(None)
    twin.weight[column, 0] += 1
    if not torch.allclose(twin(x), before):
        return False  # a removed input would have changed what the others give
    twin.weight[0] += 1  # the first filter; no other output may notice
    return torch.allclose(twin(x)[:, 1:], before[:, 1:])


def _of_parameter(parameter: Tensor, name: str, model: nn.Module) -> str | None:
    """A parameter that belongs to no known layer: one number a channel, and nothing beside it that has its width?"""
    if sum(size > 1 for size in parameter.shape) > 1:
        return f"is a parameter of shape {tuple(parameter.shape)}, not one number a channel"
    # A buffer as long as the parameter is most often one number a channel too (a table, statistics), but nothing says
    # so, and one that is left whole would no longer fit.
    owner = model.get_submodule(name.rpartition(".")[0])
    beside = sorted(key for key, buffer in owner.named_buffers(recurse=False) if buffer.numel() == parameter.numel())
    return f"has {', '.join(beside)} beside it, in a {type(owner).__name__}" if beside else None


def _padding(node: "tp.dependency.Node") -> str | None:
    pad = getattr(node.grad_fn, "_saved_pad", None)
    # F.pad counts from the last axis: the third pair belongs to the channels of (N, C, H, W)
    if pad is not None and any(pad[4:6]):
        return "a shortcut pads its channels with zeros, so the stages that it joins differ in width"
    return None


def outside(module: nn.Module | nn.Parameter, positions: tuple[tuple[int, ...], ...], side: str) -> bool:
    """Does a map of channels point behind the end of the layer? (An operation in between changed their number.)"""
    if isinstance(module, nn.Parameter):
        size = module.numel()
    elif isinstance(module, _ConvNd):
        size = module.in_channels if side == "in" else module.out_channels
    elif isinstance(module, nn.Linear):
        size = module.in_features if side == "in" else module.out_features
    elif isinstance(module, _BatchNorm):
        size = module.num_features
    else:
        return False
    return any(max(places, default=0) >= size for places in positions)
