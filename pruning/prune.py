"""Prune a network: choose by a method, cut, and check that nothing else changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pruning.groups import Group
from pruning.methods import Calibration, Request, get_method
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.surgery import apply, check_masked_equals_small, mask


@dataclass(frozen=True)
class Arch:
    """An architecture by name and options, as a plan records it."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Pruned:
    """The smaller network, the plan that makes it, and how far masked and smaller network differed."""

    model: nn.Module
    plan: PruningPlan
    difference: float


def prune(
    model: nn.Module,
    arch: Arch,
    groups: Sequence[Group],
    method: str,
    selection: Selection,
    *,
    batch: Tensor,
    seed: int,
    options: Any = None,
    calibration: Calibration | None = None,
) -> Pruned:
    """Prune `model` by the named method; `model` itself is not changed.

    `batch` (N, C, H, W) is the input on which the masked dense network and the smaller one must agree.
    Raises ValueError for what cannot be done and RuntimeError when the two networks differ.
    """
    chosen = get_method(method)
    settings = chosen.options() if options is None else options
    choice = chosen.prune(model, Request(groups, selection, settings, seed, calibration, batch[:1]))
    plan = make_plan(arch, groups, choice.keep)
    small = apply(model, plan, groups)
    difference = check_masked_equals_small(mask(model, plan.keep, groups), small, batch)
    return Pruned(small, plan, difference)


def make_plan(arch: Arch, groups: Sequence[Group], keep: Mapping[str, tuple[int, ...]]) -> PruningPlan:
    """The plan that keeps these channels of `arch`."""
    widths = {g.name: g.width for g in groups if g.name in keep}
    return PruningPlan(arch.name, dict(arch.options), {name: tuple(keep[name]) for name in widths}, widths)
