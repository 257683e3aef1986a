"""From a pattern to a network: widths or masks that follow its shares and meet a ratio or a budget.

All shares are scaled by one common factor; a share grows to 1 and no further, and a layer keeps at least one channel or
weight. Where the numbers of stages differ, a stage takes the share of the one at the same relative depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from pruning.cost import count_macs, count_params, map_areas
from pruning.design.budget import Budget, cost_of_widths, fit
from pruning.design.pattern import Pattern, pattern_from_masks, pattern_from_plan, stages_of
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.graph.norm_channels import NormChannels, input_selections
from pruning.masks import Masks
from pruning.plan import PruningPlan
from pruning.seeds import random_stream
from pruning.select import Selection, count_left, eligible


def free_places(model: nn.Module, groups: Sequence[Group], selection: Selection) -> list[NormChannels]:
    """What `selection` lets a design narrow: groups, and the inputs of layers that read a trunk behind a BatchNorm.

    A group that such a BatchNorm scales belongs to the trunk and keeps its width. In scope `all` nothing is selected,
    the trunk itself is narrowed.
    """
    if selection.scope == "all":
        return [NormChannels(group, ()) for group in eligible(groups, selection)]
    # Behind a BatchNorm on a trunk readers select instead, so that each layer has its own share of the trunk as
    # slimming gives it. The group of that trunk is refused by name and not left out: `skip` may name it.
    selecting = input_selections(model, groups)
    norms = {place.unit.name for place in selecting}
    reason = "the layers behind it select what they read; scope 'all' narrows it instead"
    units = [
        replace(group, fixed=group.fixed or reason) if any(m.layer in norms for m in group.members) else group
        for group in groups
    ]
    chosen = {unit.name for unit in eligible([*units, *(place.unit for place in selecting)], selection)}
    found = [*(NormChannels(group, ()) for group in groups), *selecting]
    return [place for place in found if place.unit.name in chosen]


def selected_counts(plan: PruningPlan, model: nn.Module, groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    """Channels read and channels there are, of each place of the dense `model` where layers select their inputs.

    Empty for a plan that selects nowhere. Otherwise every BatchNorm on a trunk counts, one whose readers the plan does
    not name with all its channels. A layer that selects elsewhere is a place of its own. Places have the BatchNorm's
    name, or that layer's; ValueError for a plan of another network.
    """
    if not plan.select:
        return {}
    read = {name: _inputs_read(plan, model, name) for name in plan.select}
    counts: dict[str, tuple[int, int]] = {}
    for place in input_selections(model, groups):
        n_inputs = int(model.get_parameter(f"{place.readers[0]}.weight").shape[1])
        # A channel is there as long as one of the layers reads it. A reader that the plan does not name reads all of
        # it. Behind a flatten a channel is n_inputs / width inputs, which go together.
        union = set().union(*(read.pop(reader, (range(n_inputs), 0))[0] for reader in place.readers))
        counts[place.unit.name] = (len(union) * place.unit.width // n_inputs, place.unit.width)
    return counts | {name: (len(inputs), n_inputs) for name, (inputs, n_inputs) in read.items()}


def _inputs_read(plan: PruningPlan, model: nn.Module, name: str) -> tuple[Sequence[int], int]:
    """The inputs that a layer selects, and how many the dense one has."""
    layer = dict(model.named_modules()).get(name)
    inputs = plan.select[name]
    if not isinstance(layer, nn.Conv2d | nn.Linear) or inputs[-1] >= layer.weight.shape[1]:
        raise Refusal(f"a plan for {plan.arch!r}, not for this network: {name!r} is to read channel {inputs[-1]}")
    return inputs, int(layer.weight.shape[1])


# of the interval of scales, down to the last bits of a float
_HALVINGS = 60
_TOLERANCE = 1e-6

Place = tuple[str, int]
"""A convolution's weight by parameter name, and a position in its kernel, row by row."""


@dataclass(frozen=True)
class Dense:
    """The network that is narrowed, its groups, and one input (1, C, H, W), which flat patterns do without."""

    model: nn.Module
    groups: Sequence[Group]
    example: Tensor | None

    def areas(self) -> dict[str, int]:
        """See `map_areas`; ValueError without an example."""
        if self.example is None:
            raise Refusal("stages are told by the size of their feature maps, which needs an example input")
        return map_areas(self.model, self.example)


# of every channel the same share: what `guided` makes of it is the network of its control, `uniform`
FLAT = Pattern(widths=(1.0,))


def pattern_of(plan: PruningPlan, dense: Dense, masks: Masks | None = None) -> Pattern:
    """Kept shares by stage of a plan for the network `dense`, selected inputs included; of its `masks` if there are."""
    if masks:
        return pattern_from_masks(masks, dense.areas())
    selected = selected_counts(plan, dense.model, dense.groups)
    return pattern_from_plan(plan, dense.areas(), selected)


def design_widths(pattern: Pattern, dense: Dense, free: Sequence[NormChannels], goal: float | Budget) -> dict[str, int]:
    """Channels left at each of the `free` places (see `free_places`), by name.

    `goal`: the fraction of their channels to remove, met exactly, or what the whole network may cost, met as nearly
    as a common factor and whole channels allow; ValueError for a goal that the pattern cannot reach.
    """
    widths = {place.unit.name: place.unit.width for place in free}
    # one stage for all spares a flat pattern the example input that areas need
    stages = stages_of(widths, dense.areas()) if pattern.stages > 1 else dict.fromkeys(widths, 0)
    largest = max(pattern.widths)  # only proportions count: every flat pattern is the same
    shares = _by_layer([share / largest for share in pattern.widths], pattern, stages)

    # The pattern gives proportions only, and one factor, the scale, makes widths of them. At scale 0 every layer has
    # one channel, at 1 / (smallest share) each is whole, and no width falls as the scale grows, which `fit` relies on.
    def counts_at(scale: float) -> dict[str, int]:
        return {name: max(1, min(width, round(width * shares[name] * scale))) for name, width in widths.items()}

    highest = 1 / min(shares.values())
    if not isinstance(goal, Budget):
        amounts = {name: width * shares[name] for name, width in widths.items()}
        return share_out(count_left(sum(widths.values()), goal), amounts, widths)
    cost = cost_of_widths(goal.quantity, dense.model, dense.groups, dense.example, free)
    return fit(counts_at, cost, goal.target(cost(widths)), 0, highest)


def share_out(total: int, amounts: Mapping[str, float], limits: Mapping[str, int]) -> dict[str, int]:
    """`total` in whole numbers in proportion to `amounts`, each from 1 to its limit; the largest remainders round up.

    Of equal remainders the first do. ValueError for a total that ones and limits do not bracket.
    """
    if not len(limits) <= total <= sum(limits.values()):
        raise Refusal(f"{total} channels cannot be left: {len(limits)} to {sum(limits.values())} are possible")

    def exact_at(scale: float) -> dict[str, float]:
        return {name: max(1.0, min(limit, amounts[name] * scale)) for name, limit in limits.items()}

    # Whole numbers first leave out what rounding will do: the scale at which the fractions add up to the total. The sum
    # grows with the scale from ones (0) to limits (the largest of these quotients).
    # Layers that are at an end (one, or their limit) stay there, and the others share what is left in proportion.
    low, high = 0.0, max(limit / amounts[name] for name, limit in limits.items())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(exact_at(middle).values()) < total else (low, middle)
    exact = exact_at(high)
    # less than one each is missing now, fewer in all than there are names; bisection may leave 2.9999999 for 3
    counts = {name: int(amount + _TOLERANCE) for name, amount in exact.items()}
    # rounded, so that equal remainders are equal in floating point, too
    by_remainder = sorted(counts, key=lambda name: round(counts[name] - exact[name], 6))
    # the most is missing where counts - exact is lowest; a layer at its limit misses nothing, so no limit is passed
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def design_masks(
    pattern: Pattern, dense: Dense, weights: Mapping[str, Tensor], goal: float | Budget, *, seed: int
) -> Masks:
    """Masks of the named convolution `weights`, drawn at random with the pattern's densities.

    `goal`: the fraction of these weights to remove, or what the whole network may cost when a removed
    weight counts as no param and no multiply-add.
    """
    # As for widths the pattern gives proportions, here for each place: one position in the kernels of one convolution,
    # which has as many weights as the layer has slices. At the largest scale every place with a share is whole; places
    # without one stay empty, so a pattern with zeros cannot reach every goal, which `fit` says.
    areas = {f"{name}.weight": area for name, area in dense.areas().items()}
    densities = _densities(pattern, weights, stages_of(weights, areas))

    def counts_at(scale: float) -> dict[Place, int]:
        counts: dict[Place, int] = {}
        for name, weight in weights.items():
            slices = weight.shape[0] * weight.shape[1]  # (O, I, kh, kw): so many weights at each kernel position
            row = [min(slices, round(slices * density * scale)) for density in densities[name]]
            # a layer without any weight would cut the network in two; its densest position keeps one
            row[row.index(max(row))] = max(1, *row)
            counts |= {(name, position): n for position, n in enumerate(row)}
        return counts

    highest = 1 / min(density for row in densities.values() for density in row if density > 0)
    if isinstance(goal, Budget):
        macs = goal.quantity == "macs"
        price = {name: areas[name] if macs else 1 for name in weights}
        whole = count_macs(dense.model, dense.example) if macs else count_params(dense.model)  # type: ignore[arg-type]
        others = whole - sum(weight.numel() * price[name] for name, weight in weights.items())
        target = goal.target(whole) - others  # what is not masked (BatchNorm, linear layers, ...) is paid for in full
    else:
        price = dict.fromkeys(weights, 1)
        target = count_left(sum(weight.numel() for weight in weights.values()), goal)

    def cost(counts: Mapping[Place, int]) -> int:
        return sum(n * price[name] for (name, _), n in counts.items())

    counts = fit(counts_at, cost, target, 0, highest)
    return Masks({name: _draw(name, weight, counts, seed) for name, weight in weights.items()})


ShareT = TypeVar("ShareT", float, tuple[float, ...])


def _by_layer(shares: Sequence[ShareT], pattern: Pattern, stages: Mapping[str, int]) -> dict[str, ShareT]:
    """The pattern's entry for each layer, by the relative depth of the layer's stage."""
    n = max(stages.values()) + 1
    return {name: shares[pattern.stage_at(stage, n)] for name, stage in stages.items()}


def _densities(
    pattern: Pattern, weights: Mapping[str, Tensor], stages: Mapping[str, int]
) -> dict[str, tuple[float, ...]]:
    """Kept share at each kernel position of each convolution."""
    kernels = _by_layer(pattern.kernels, pattern, stages)
    others = _by_layer(pattern.others, pattern, stages)
    return {
        name: kernels[name] if weight.shape[2:] == (3, 3) else (others[name],) * weight.shape[2:].numel()
        for name, weight in weights.items()
    }


def _draw(name: str, weight: Tensor, counts: Mapping[Place, int], seed: int) -> Tensor:
    """A mask like `weight` with so many ones at each kernel position, the same on every device."""
    generator = random_stream(seed, name)
    slices = weight.shape[0] * weight.shape[1]
    mask = torch.zeros(slices, weight.shape[2:].numel(), dtype=torch.bool)
    # Which of a layer's slices keep a weight is drawn for each position alone: the pattern says how many, not where.
    for position in range(mask.shape[1]):
        mask[torch.randperm(slices, generator=generator)[: counts[name, position]], position] = True
    return mask.view(weight.shape).to(weight.device)
