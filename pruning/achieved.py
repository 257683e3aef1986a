"""What a pruning was asked to remove and what it removed, counted alike for every method.

Asked is the selection's share of all that its scope names and `skip` does not leave out, whether it can be cut or not:
a grouped convolution in scope counts. By the rule of the literature scope `inner` names only what no shortcut shares.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd

from pruning.by_target import Reached
from pruning.design.widths_and_masks import selected_counts
from pruning.errors import Refusal
from pruning.graph.blocks import residual_blocks
from pruning.graph.layers import ScatterOutputs
from pruning.graph.members import Group
from pruning.graph.norm_channels import input_selections
from pruning.masks import Masks
from pruning.methods import Choice, MethodOptions, Request
from pruning.plan import PruningPlan
from pruning.select import count_to_keep, ratio_of
from pruning.surgery import producer_of

_TOLERANCE = 1e-6  # 0.29 * 100 is 28.999...
_FAR_BELOW = 0.6  # of the asked count: shares of narrow layers round, whole kinds of layers out of reach do not
_SHOWN = 3  # reasons in an error, and layers in a reason


@dataclass(frozen=True)
class Beyond:
    """Channels in scope that cannot be removed: why, how many, computed by which layers."""

    why: str
    channels: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Achieved:
    """What was asked and what was done, counted in `unit`s.

    The network has `total`; the selection names `named` of them; of these `eligible` can go, `asked` were to go, and
    `removed` went. `asked` None: a budget, a target (`reached`), or what training brought to zero, decides. Channels
    are those that convolutions and linear layers compute inside the network, or that a BatchNorm hands to layers which
    select from it; depthwise ones go with those they carry.
    """

    unit: Literal["channels", "weights", "blocks"]
    asked: int | None
    removed: int
    eligible: int
    named: int
    total: int
    beyond: tuple[Beyond, ...] = ()
    reached: Reached | None = None

    @property
    def far_below(self) -> bool:
        """Less than six tenths of what was asked."""
        return self.asked is not None and self.removed < _FAR_BELOW * self.asked

    def as_result(self) -> dict[str, object]:
        """Plain data for a result."""
        found = {**asdict(self), "beyond": [{**asdict(b), "layers": list(b.layers)} for b in self.beyond]}
        if self.reached is None:
            del found["reached"]
        return found

    def check(self, method: str, scope: str) -> None:
        """ValueError where far less was removed than asked, or the cost is far from its target."""
        if self.reached is not None:
            self.reached.check(method)
        if not self.far_below:
            return
        parts = [
            f"{b.channels:,} {self.unit} of {len(b.layers)} layers ({', '.join(b.layers[:_SHOWN])}"
            f"{', ...' if len(b.layers) > _SHOWN else ''}) are out of its reach: {b.why}"
            for b in self.beyond[:_SHOWN]
        ]
        raise Refusal(
            f"{method} was asked to remove {self.asked:,} of the {self.named:,} {self.unit} that scope {scope!r} names"
            f" and removes {self.removed:,}: {'; '.join(parts) or 'its shares round to none'}; choose another method,"
            " name these layers in `skip`, or allow it with prune.allow_partial=true (--allow-partial of"
            " `prune-transfer prune`)"
        )


def achieved(model: nn.Module, request: Request[MethodOptions], choice: Choice, *, by_ratio: bool = True) -> Achieved:
    """The counts of what was chosen of `model`, which is not pruned yet, by this request.

    `by_ratio`: does the selection say how much, see `Method.sets_amount`?
    """
    if choice.masks:
        found = _of_weights(model, request, choice)
    elif choice.drop:
        found = _of_blocks(model, request, choice)
    else:
        found = _of_channels(model, request, choice)
    return found if by_ratio else replace(found, asked=None)


def _of_weights(model: nn.Module, request: Request[MethodOptions], choice: Choice) -> Achieved:
    # Masks are of all that is left after all rounds, and so are both counts: a round of tickets that takes 20 % of what
    # is left asks for what was gone before and a fifth of the rest.
    masks, selection = Masks(choice.masks), request.selection
    named = sum(mask.numel() for mask in masks.values())
    gone = named - Masks(choice.before).kept() if choice.before else 0
    if selection.layers:
        layers = [Group(name.removesuffix(".weight"), mask.numel(), (), ()) for name, mask in masks.items()]
        asked = sum(group.width - count_to_keep(group.width, ratio_of(group, selection)) for group in layers)
    else:
        asked = gone + floor((named - gone) * selection.stage_ratios()[0] + _TOLERANCE)
    total = sum(m.weight.numel() for m in model.modules() if isinstance(m, _ConvNd | nn.Linear))
    return Achieved("weights", asked, named - masks.kept(), named, named, total)


def _of_blocks(model: nn.Module, request: Request[MethodOptions], choice: Choice) -> Achieved:
    blocks = residual_blocks(model)
    named = [name for name in blocks if not request.selection.skips(name)]
    asked = len(named) - count_to_keep(len(named), request.selection.stage_ratios()[0])
    return Achieved("blocks", asked, len(choice.drop), len(named), len(named), len(blocks))


@dataclass(frozen=True)
class _Unit:
    """Channels that one layer computes, or that a BatchNorm hands on; `asked` has the name that their ratio goes by."""

    group: Group
    asked: Group
    removed: int
    named: bool
    why: str | None = None


def _of_channels(model: nn.Module, request: Request[MethodOptions], choice: Choice) -> Achieved:
    units = list(_units(model, request, choice))
    named = [unit for unit in units if unit.named]
    # asked in fractions of channels, and rounded down once: layers round each for itself, but not the sum
    asked = sum(unit.group.width * ratio_of(unit.asked, request.selection) for unit in named)
    beyond: dict[str, list[Group]] = {}
    for unit in named:
        if unit.why is not None:
            beyond.setdefault(_without_names(unit.why, model), []).append(unit.group)
    reasons = [Beyond(why, sum(g.width for g in gs), tuple(g.name for g in gs)) for why, gs in beyond.items()]
    width, out_of_reach = sum(unit.group.width for unit in named), sum(reason.channels for reason in reasons)
    return Achieved(
        unit="channels",
        asked=floor(asked + _TOLERANCE),
        removed=sum(unit.removed for unit in units),
        eligible=width - out_of_reach,
        named=width,
        total=sum(unit.group.width for unit in units),
        beyond=tuple(sorted(reasons, key=lambda reason: -reason.channels)),
    )


def _units(model: nn.Module, request: Request[MethodOptions], choice: Choice) -> Iterator[_Unit]:
    selection = request.selection
    # On a trunk that keeps its width what counts is what its readers select behind a BatchNorm, not the trunk's
    # channels, which are all computed on: counting both would count them twice.
    places = input_selections(model, request.groups) if choice.select or choice.beyond else []
    norms = {place.unit.name for place in places}
    modules = dict(model.named_modules())
    scattered = {producer_of(name, request.groups, model): kept for name, kept in choice.scatter.items()}
    for group in request.groups:
        layers = {member.layer for member in group.members}
        if layers & norms:
            continue  # its channels are counted where they are selected
        # a branch that scatters into a trunk is a group of its own, but its channels are the trunk's
        trunk = not group.inner or any(isinstance(modules.get(name), ScatterOutputs) for name in layers)
        # by layer, not by group: on a trunk a method may narrow one branch's output and leave another's (`scatter`)
        for producer in group.producers:
            width = _outputs(modules[producer])  # not the group's where a shortcut pads
            own = replace(group, name=producer, width=width)
            # a method whose own rule says what it is about goes layer by layer, and is not measured by the scope
            by_layer = selection.skips(group.name) or selection.skips(producer)
            skipped = selection.skips_group(group) if choice.takes is None else by_layer
            in_scope = selection.scope == "all" or not trunk
            named = not skipped and (in_scope if choice.takes is None else producer in choice.takes)
            named = named and group.name not in choice.leaves
            kept = choice.keep.get(group.name, range(width))
            kept = scattered.get(producer, kept)
            removed = width - len(kept)
            why = None if removed else group.fixed or choice.beyond.get(group.name)
            yield _Unit(own, group if choice.takes is None else own, removed, named, why)
    plan = PruningPlan("", select=choice.select)
    left = selected_counts(plan, model, request.groups)
    for place in places:
        kept_here, width = left.get(place.unit.name, (place.unit.width, place.unit.width))
        yield _Unit(place.unit, place.unit, width - kept_here, not selection.skips(place.unit.name))


def _outputs(layer: nn.Module) -> int:
    """Channels that a convolution, transposed ones included, or a linear layer computes."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _without_names(why: str, model: nn.Module) -> str:
    """A reason that several layers share, whatever layer it names."""
    names = {name for name, _ in model.named_modules() if name}
    return " ".join("one of its layers" if word in names else word for word in why.split())
