"""Layers of a pruned network whose trunk keeps its width: they read some of its channels, or write into some.

A layer *becomes* one of these: its class changes to a subclass of its own class, so parameter names, hooks,
device and `isinstance` stay as they were, and one buffer of indices is added. The idea of selecting inputs is that
of network slimming's released code for pre-activation networks (arXiv 1708.06519).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase


class SelectInputs(nn.Module):
    """Mixin: the layer reads the channels `inputs` (int64) of the (N, C, ...) that it is given."""

    inputs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.index_select(1, self.inputs))


class ScatterOutputs(nn.Module):
    """Mixin: the layer's output channels become the channels `outputs` (int64) of `width`; the others are zero."""

    outputs: Tensor
    width: int

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)  # (N, len(outputs), ...)
        wide = y.new_zeros(y.shape[0], self.width, *y.shape[2:])
        return wide.index_copy(1, self.outputs, y)


# These three are written out so that the usual layers have a class that can be found by its name, as a pickle needs;
# for all others one is made when it is met (`_subclass`).
class SelectConv2d(SelectInputs, nn.Conv2d):
    """A convolution that reads some of the channels it is given."""


class SelectLinear(SelectInputs, nn.Linear):
    """A linear layer that reads some of the features (N, C) it is given."""


class ScatterBatchNorm2d(ScatterOutputs, nn.BatchNorm2d):
    """A BatchNorm whose narrower output is put into the trunk's channels."""


def is_depthwise(layer: object) -> bool:
    """Does each output channel of this convolution see only its own input channel?"""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def is_frozen_norm(module: nn.Module) -> bool:
    """A BatchNorm that holds all its tensors as buffers: torchvision's, Detectron2's, timm's with an activation."""
    return {"running_mean", "weight"} <= dict(module.named_buffers(recurse=False)).keys()


def is_batch_norm(module: nn.Module) -> bool:
    """A BatchNorm with gamma and beta, or a frozen one, whatever else it wraps (timm's BatchNormAct2d)."""
    return is_frozen_norm(module) or (isinstance(module, _BatchNorm) and module.affine)


def is_norm(module: nn.Module) -> bool:
    """A normalisation: one layer, whatever it wraps (an activation, a dropout), told by its type."""
    return isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm) or is_frozen_norm(module)


def channel_axis(parameter: Tensor) -> int:
    """The one axis of a bare parameter with more than one entry: 1 of (1, C, 1, 1); the first if there is none."""
    return next((axis for axis, size in enumerate(parameter.shape) if size > 1), 0)


def shared_parameters(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """By the name of each parameter that several layers hold as their own: all its names, its own among them.

    A layer that is called more than once, or found under two names, shares nothing.
    """
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():  # each once, by its first name
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            names.setdefault(id(parameter), []).append(f"{prefix}.{leaf}" if prefix else leaf)
    return {name: tuple(alike) for alike in names.values() if len(alike) > 1 for name in alike}


LAYERS = (SelectInputs, ScatterOutputs)
"""A tracer must treat these as leaves, or they dissolve into operations and their parameters lose their layer."""

_SELECT: dict[type, type] = {nn.Conv2d: SelectConv2d, nn.Linear: SelectLinear}
_SCATTER: dict[type, type] = {nn.BatchNorm2d: ScatterBatchNorm2d}


def select_inputs(layer: nn.Module, inputs: Sequence[int]) -> None:
    """Make a layer, already cut to len(inputs) input channels, read these channels of what it is given."""
    index = torch.tensor(list(inputs), dtype=torch.long, device=next(layer.parameters()).device)
    if isinstance(layer, SelectInputs):
        # `inputs` number the channels that its kernel read until now; what it is given is numbered as ever
        layer.inputs = layer.inputs[index]
        return
    layer.__class__ = _subclass(type(layer), SelectInputs, _SELECT)
    layer.register_buffer("inputs", index)


def scatter_outputs(layer: nn.Module, outputs: Sequence[int], width: int) -> None:
    """Make a layer, already cut to len(outputs) output channels, put them into these channels of `width`."""
    device = next(iter(layer.state_dict().values())).device  # a frozen BatchNorm has no parameters
    index = torch.tensor(list(outputs), dtype=torch.long, device=device)
    layer.__class__ = _subclass(type(layer), ScatterOutputs, _SCATTER)
    assert isinstance(layer, ScatterOutputs)
    layer.register_buffer("outputs", index)
    layer.width = width


@contextmanager
def scatters_kept(model: nn.Module) -> Iterator[None]:
    """Around the replacement of normalisation layers by others: a new one scatters as the old one of its name did."""
    before = {name: m for name, m in model.named_modules() if isinstance(m, ScatterOutputs)}
    yield
    for name, layer in before.items():
        replacement = model.get_submodule(name)
        if not isinstance(replacement, ScatterOutputs):
            scatter_outputs(replacement, layer.outputs.tolist(), layer.width)


def _subclass(cls: type, mixin: type, known: dict[type, type]) -> type:
    """The class of `known`, or a new one for a layer class met for the first time (a frozen BatchNorm, say)."""
    if cls not in known:  # made once, so that layers of one class stay of one class
        known[cls] = type(f"{mixin.__name__}{cls.__name__}", (mixin, cls), {})
    return known[cls]
