"""Checks by a forward pass that the channels of a group turn up where its members say, and nowhere else.

The dependency graph takes an operation that it does not know for elementwise. Here half of the channels of each
group, drawn at random, are made NaN where they are computed. NaN survives any arithmetic, whatever the weights: a
softmax or a mean over channels, a shuffle of pixels or channels, a flattening in another order carry it to places where
it is not expected. Each layer notes where NaN arrives, goes on with zeros, and marks its own outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pruning.graph.layers import channel_axis, is_depthwise, is_norm
from pruning.graph.members import Group
from pruning.seeds import random_stream

_OUTPUT = "the network's output"


@torch.no_grad()
def leaks(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> dict[str, str]:
    """By the name of each group whose channels do not stay apart: where they turned up instead.

    `model` in evaluation mode; `example`: an input batch (N, C, H, W).
    """
    if not groups:
        return {}
    found = _first_leak(model, example, groups)
    if found is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: found}
    # All groups at once first: most networks are clean, and one forward pass says so. Else the guilty ones are looked
    # for by halves. If each half is clean alone, only their meeting leaks, and none of them is to be trusted.
    half = len(groups) // 2
    parts = leaks(model, example, groups[:half]) | leaks(model, example, groups[half:])
    return parts or {group.name: found for group in groups}


@dataclass
class _Marks:
    """Marked indices by layer, on either side; `leaks`: where others were seen."""

    outputs: dict[str, set[int]] = field(default_factory=dict)
    inputs: dict[str, set[int]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)


def _draw(groups: Sequence[Group]) -> _Marks:
    marks = _Marks()
    for group in groups:
        # by the group's own name: the same channels whether it is tried alone or with others
        order = torch.randperm(group.width, generator=random_stream(0, group.name)).tolist()
        for member in group.members:
            places = marks.outputs if member.side == "out" else marks.inputs
            marked = places.setdefault(member.layer, set())
            # not all of them: a shuffle among a group's own channels would go unseen
            for channel in order[: max(1, group.width // 2)]:
                marked.update(member.positions[channel])
    return marks


def _first_leak(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> str | None:
    marks = _draw(groups)
    import torch_pruning as tp

    # every layer that mixes or scales channels by number watches its input, of whatever group it is, or of none
    with ExitStack() as stack:
        for name, layer in model.named_modules():
            if isinstance(layer, _ConvNd | nn.Linear | nn.PReLU) or is_norm(layer):
                stack.enter_context(_watched(name, layer, marks))
        for name, parameter in model.named_parameters():
            if name in marks.outputs:
                stack.enter_context(_marked(parameter, marks.outputs[name]))
        out = model(example)
    if any(bool(o.isnan().any()) for o in tp.utils.flatten_as_list(out) if isinstance(o, Tensor)):
        marks.leaks.append(_OUTPUT)
    return marks.leaks[0] if marks.leaks else None


@contextmanager
def _watched(name: str, layer: nn.Module, marks: _Marks) -> Iterator[None]:
    """While in force, `layer` notes NaN at other inputs than the marked ones, and marks its outputs."""
    outputs = marks.outputs.get(name, set())
    # where channels keep their places, a norm or a depthwise convolution is a member by its outputs alone
    carries = is_depthwise(layer) or not isinstance(layer, _ConvNd | nn.Linear)
    expected = outputs if carries else marks.inputs.get(name, set())

    def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        nan = args[0].isnan()
        if not bool(nan.any()):
            return None
        axis = _axis(layer, args[0])
        # channels first, all else flat: (C, ...) -> indices of the channels with a NaN anywhere
        seen = set(nan.transpose(0, axis).flatten(1).any(1).nonzero().flatten().tolist())
        if not seen <= expected:
            marks.leaks.append(name)
        # Zeros go on: one NaN in a dense layer would make all its outputs NaN, and hide where the next ones come from.
        # What this layer computes of the group is marked anew behind it.
        return (args[0].masked_fill(nan, 0), *args[1:])

    def after(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if not outputs:
            return out
        return out.index_fill(_axis(layer, out), torch.tensor(sorted(outputs), device=out.device), torch.nan)

    handles = [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _axis(layer: nn.Module, x: Tensor) -> int:
    """Where a layer's channels are: last for linear layers and LayerNorm, else second."""
    return x.ndim - 1 if isinstance(layer, nn.Linear | nn.LayerNorm) else min(1, x.ndim - 1)


@contextmanager
def _marked(parameter: nn.Parameter, indices: set[int]) -> Iterator[None]:
    """While in force, these entries of a parameter of one number a channel are NaN."""
    before = parameter.detach().clone()
    try:
        index = torch.tensor(sorted(indices), device=parameter.device)
        parameter.data.index_fill_(channel_axis(parameter), index, torch.nan)
        yield
    finally:
        parameter.data.copy_(before)
