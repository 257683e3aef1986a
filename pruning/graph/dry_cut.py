"""Checks without any numbers that a network still runs when a group is narrowed.

A forward pass may have a width written into it, in a view or a split. Such a network reads every channel at its place,
yet fails once there are fewer. It is cut and run on PyTorch's meta device, where tensors have shapes and no values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pruning.graph.members import Group
from pruning.graph.shapes import without_values
from pruning.plan import PruningPlan
from pruning.surgery import apply


def broken_by(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> dict[str, str]:
    """By the name of each group that cannot be narrowed: what PyTorch says where it is.

    `model` in evaluation mode; `example`: an input batch (N, C, H, W). Empty where the network cannot run without
    values at all.
    """
    blank = without_values(model)
    x = example.to("meta")
    groups = [group for group in groups if group.width > 1]  # half of one channel is that channel
    # one run with all of them cut clears most networks; one that fails uncut says nothing about the cut
    if not groups or _fault(blank, x, groups) is None or _fault(blank, x, []) is not None:
        return {}
    return _search(blank, x, groups)


def _search(blank: nn.Module, x: Tensor, groups: Sequence[Group]) -> dict[str, str]:
    fault = _fault(blank, x, groups) if groups else None
    if fault is None:
        return {}
    if len(groups) == 1:
        return {groups[0].name: fault}
    # By halves, as in `probe.leaks`: a few faulty groups of many cost a few runs. Groups that only fail together (two
    # widths that must stay equal) are all refused.
    half = len(groups) // 2
    return _search(blank, x, groups[:half]) | _search(blank, x, groups[half:]) or {g.name: fault for g in groups}


@torch.no_grad()
def _fault(blank: nn.Module, x: Tensor, groups: Sequence[Group]) -> str | None:
    """The first line of the error when half of the channels of each group are gone, or None."""
    # Half, not one: a number of channels that is written down as a divisor (heads, groups of a norm) fails on it too.
    # Which half does not matter, only shapes are computed.
    keep = {group.name: tuple(range((group.width + 1) // 2)) for group in groups}
    plan = PruningPlan("", {}, keep, {group.name: group.width for group in groups})
    try:
        apply(blank, plan, groups)(x)
    except (RuntimeError, NotImplementedError, ValueError, AssertionError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return None
