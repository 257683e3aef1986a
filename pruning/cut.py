"""Prune a network: choose by a method, cut, and check that nothing else changed."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TypedDict

import torch
from torch import Tensor, nn

from pruning.achieved import Achieved, achieved
from pruning.by_target import CostLeft, at_target
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods import Calibration, Choice, MethodOptions, Request, get_method
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.surgery import apply, check_masked_equals_small, mask

# what a result says where `Pruned.difference` is None
VOID_CHECK = "void: all outputs of the network are equal, so they would not show a wrong cut"


@dataclass(frozen=True)
class Arch:
    """An architecture by name and options, as a plan records it."""

    name: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Pruned:
    """The pruned network, the plan that makes it, and how far masked and smaller network differed.

    `difference` None: the check is void, the network's outputs are constant (see `check_masked_equals_small`).
    `masks`: 0/1 tensors by parameter name of a method that removes single weights; `model` has them applied.
    `achieved`: what was removed of what was asked, `seconds`: what choosing took; None where a plan was only carried
    out.
    """

    model: nn.Module
    plan: PruningPlan
    difference: float | None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    achieved: Achieved | None = None
    seconds: float | None = None

    def cpu(self) -> "Pruned":
        """With its network, moved in place, and its masks on the CPU."""
        return replace(self, model=self.model.cpu(), masks={name: mask.cpu() for name, mask in self.masks.items()})


class Terms(TypedDict, total=False):
    """What `prune` has a default for and those who call it for others hand on.

    `options`: an instance of `METHODS[method].options`, the default one if None. `seed`: of the method's random
    choices. `allow_partial`: go on where far less can be removed than was asked (see `Achieved.check`). `cost_left`:
    what a selection by target is measured by, the given model's own cost if None.
    """

    seed: int
    options: MethodOptions | None
    allow_partial: bool
    cost_left: CostLeft | None


def prune(
    model: nn.Module,
    arch: Arch,
    groups: Sequence[Group],
    method: str,
    selection: Selection,
    *,
    batch: Tensor,
    seed: int = 0,
    options: MethodOptions | None = None,
    calibration: Calibration | None = None,
    finetune: Callable[[nn.Module], None] | None = None,
    allow_partial: bool = False,
    cost_left: CostLeft | None = None,
) -> Pruned:
    """Prune `model` by the named method; `model` itself is not changed.

    `batch` (N, C, H, W) is the input on which the masked dense network and the smaller one must agree; a method
    that rewrites weights is compared with its own rewritten dense network. `finetune`: see `Request`; the others: see
    `Terms`. Raises ValueError for what cannot be done and, unless `allow_partial`, where far less can be removed than
    was asked; RuntimeError when the two networks differ.
    """
    chosen = get_method(method)
    settings = chosen.options() if options is None else options
    # one image as the example: costs are those of one image, whatever the size of the batch
    request = Request(groups, selection, settings, seed, calibration, batch[:1], finetune)
    if cost_left is None:
        cost_left = CostLeft(model, batch[:1], lambda choice: _cut(model, make_plan(arch, groups, choice), groups))
    start = perf_counter()
    request, reached = at_target(model, method, request, cost_left)
    choice = chosen.prune(model, request)
    seconds = perf_counter() - start
    if reached is not None:
        reached = replace(reached, left=cost_left(choice, reached.quantity))
    by_ratio = reached is None and chosen.sets_amount(settings) == "selection"
    found = replace(achieved(model, request, choice, by_ratio=by_ratio), reached=reached)
    if not allow_partial:
        found.check(method, selection.scope)
    return replace(prune_by_choice(model, arch, groups, choice, batch=batch), achieved=found, seconds=seconds)


def prune_by_choice(model: nn.Module, arch: Arch, groups: Sequence[Group], choice: Choice, *, batch: Tensor) -> Pruned:
    """Carry out what was chosen, and check it on `batch`; `model` is not changed."""
    plan = make_plan(arch, groups, choice)
    # The check is about surgery alone. So what the method rewrote (refitted kernels) or masked is in both networks that
    # are compared; a plan that removes nothing leaves only the question whether the outputs are finite.
    dense = _rewritten(model, choice)
    small = apply(dense, plan, groups)
    masked = mask(dense, plan, groups) if plan.changes_shape else dense
    return Pruned(small, plan, check_masked_equals_small(masked, small, batch), choice.masks)


def _cut(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """As `apply`; `model` itself where the plan removes nothing, as for each ratio that is tried for single weights."""
    return apply(model, plan, groups) if plan.changes_shape else model


def make_plan(arch: Arch, groups: Sequence[Group], choice: Choice) -> PruningPlan:
    """The structural part of a choice, as the plan for `arch`."""
    widths = {g.name: g.width for g in groups if g.name in choice.keep}
    unknown = sorted(choice.keep.keys() - widths.keys())
    if unknown:
        raise Refusal(f"no channel group of {arch.name!r} is named {', '.join(unknown)}")
    keep, select, scatter = (
        {name: tuple(table[name]) for name in names}
        for table, names in ((choice.keep, widths), (choice.select, choice.select), (choice.scatter, choice.scatter))
    )
    return PruningPlan(arch.name, dict(arch.options), keep, widths, select, scatter, tuple(choice.drop))


def _rewritten(model: nn.Module, choice: Choice) -> nn.Module:
    """A dense copy of `model` with the weights that the method rewrote and the masks that it chose, if any."""
    if not choice.weights and not choice.masks:
        return model
    dense = copy.deepcopy(model)
    state = dense.state_dict()
    for name, value in [*choice.weights.items(), *choice.masks.items()]:
        if name not in state:
            raise Refusal(f"the method rewrote {name!r}, which {type(model).__name__} does not have")
        if state[name].shape != value.shape:
            raise Refusal(f"the method rewrote {name!r} as {tuple(value.shape)}, it is {tuple(state[name].shape)}")
    # a state's tensors are the network's own; masks come last, so that no rewritten weight stands where one is removed
    with torch.no_grad():
        for name, value in choice.weights.items():
            state[name].copy_(value)
        for name, value in choice.masks.items():
            state[name].mul_(value)
    return dense
