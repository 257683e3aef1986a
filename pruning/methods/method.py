"""What a pruning method is: the one interface that all of them share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from pruning.effect import Effect
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.select import Selection, counts, eligible, select

Calibration = Callable[[nn.Module], Iterable[Tensor]]
"""Runs a model over calibration batches and yields the mean loss of each, so that no method knows the task.

It calls the model itself, `model(...)`, in the mode that it finds it in, on the same batches each time. A generator
keeps the graph of one batch at a time.
"""


@dataclass(frozen=True)
class MethodOptions:
    """What a method may be told. Each derives its own; one that takes this has nothing to set."""


OptionsT = TypeVar("OptionsT", bound=MethodOptions)
OptionsT_co = TypeVar("OptionsT_co", bound=MethodOptions, covariant=True)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Request(Generic[OptionsT_co]):
    """What a method is asked: the groups it may narrow, how far, and what it may look at.

    `finetune` trains the network it is given a little, in place; methods that prune layer by layer call it in between.
    `blank`: the network's weights mean nothing and it is not to be run; any choice of the asked counts will do.
    """

    groups: Sequence[Group]
    selection: Selection
    options: OptionsT_co
    seed: int
    calibration: Calibration | None = None
    example: Tensor | None = None  # one input of the model (1, C, H, W), for methods that count MACs or run it
    finetune: Callable[[nn.Module], None] | None = None
    blank: bool = False
    _known: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: str, find: Callable[[], Found]) -> Found:
        """What `find` gives, found once for all ratios that a search by target tries: scores do not depend on them."""
        if name not in self._known:
            self._known[name] = find()
        return cast(Found, self._known[name])


@dataclass(frozen=True)
class Choice:
    """What a method chose; the fields it does not use stay empty.

    `keep`, `select`, `scatter`, `drop`: as in PruningPlan. `weights`: entries of the dense network's state that the
    method rewrote, in their dense shapes; they replace the old ones before the cut. `masks`: 0/1 tensors by
    parameter name, for methods that remove single weights. `before`: likewise, the weights that the ratio is a share
    of, where that is not all. `beyond`: groups that the method cannot judge, and why.
    `takes`: the layers whose channels it is about, where its own rule and not the selection's scope says so; `leaves`:
    groups in scope that its rule is not about, so that nothing is asked of them.
    """

    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    select: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scatter: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    before: Mapping[str, Tensor] = field(default_factory=dict)
    beyond: Mapping[str, str] = field(default_factory=dict)
    takes: frozenset[str] | None = None
    leaves: frozenset[str] = frozenset()


Amount = Literal["selection", "options", "training"]


class Score(Protocol):
    """Scores of a group's channels, shape (width,); higher is better."""

    def __call__(self, model: nn.Module, group: Group, *, options: MethodOptions, seed: int) -> Tensor: ...


@dataclass(frozen=True)
class Method(Generic[OptionsT]):
    """An entry of METHODS.

    `prune` must not change the model it is given. `training_effect(model, request)` is what the method adds to the
    training that comes before pruning, asked with the same request as the pruning behind it; `effect_reads` names the
    fields of the selection that it depends on. `needs` says what `Request.calibration` is used for.
    `own_level(options)`: the level at which the method ranks whatever the selection says, None where that decides.
    `predefined`: do the widths follow from the selection alone (level `layer`), so that the pruned architecture is
    known before anything is trained? `by_norms`: does it rank channels by the BatchNorm behind them?
    `unstructured(options)`: does it remove single weights, so that it prunes networks whose channels nobody can follow
    (`Request.groups` may be empty)? `linear(options)`: those of linear layers too? `sets_amount(options)`: what says
    how much is removed, the selection, the options (a budget), or what training brought to zero; only the first asks by
    its ratio. `follows_patterns`: does it design a network after the files in its option `patterns`? `continues_masks`:
    can it prune what single weights were removed from, given their masks as its option `masks`? `between_layers`: does
    it call `Request.finetune` after each layer? `outline`: the choice of a method that looks at data or takes long,
    made without: as much, whichever; `any_as_many` by default where it looks at data.
    """

    prune: Callable[[nn.Module, Request[OptionsT]], Choice]
    options: type[OptionsT]
    training_effect: Callable[[nn.Module, Request[OptionsT]], Effect] | None = None
    effect_reads: tuple[str, ...] = ()
    needs: Literal["nothing", "activations", "gradients"] = "nothing"
    predefined: bool = True
    by_norms: bool = False
    unstructured: Callable[[OptionsT], bool] = lambda options: False
    linear: Callable[[OptionsT], bool] = lambda options: False
    sets_amount: Callable[[OptionsT], Amount] = lambda options: "selection"
    follows_patterns: bool = False
    continues_masks: bool = False
    between_layers: bool = False
    own_level: Callable[[OptionsT], Literal["layer", "global"] | None] = lambda options: None
    outline: Callable[[nn.Module, Request[OptionsT]], Choice] | None = None

    @property
    def removes_in_training(self) -> bool:
        """Does its training effect remove weights, whose masks (`Effect.masks`) pruning takes over?"""
        return self.continues_masks and self.training_effect is not None

    def fixes_widths(self, selection: Selection) -> bool:
        """Do the widths follow from the selection alone, whatever the weights and the data?"""
        return self.predefined and selection.level == "layer"

    def sketch(self, model: nn.Module, request: Request[OptionsT]) -> Choice:
        """A choice of as much as the method's, which needs no data and does not run the network."""
        if self.outline is not None:
            return self.outline(model, request)
        return self.prune(model, request) if self.needs == "nothing" else any_as_many(model, request)


def any_as_many(model: nn.Module, request: Request[MethodOptions]) -> Choice:
    """As many channels as scores would leave that fall alike in all groups."""
    chosen = eligible(request.groups, request.selection)
    alike = {group.name: torch.arange(group.width, 0, -1) / group.width for group in chosen}
    return Choice(select(alike, chosen, request.selection))


def by_score(score: Score) -> Callable[[nn.Module, Request[MethodOptions]], Choice]:
    """The `prune` of a method that scores each group on its own and shares the selection."""

    def prune(model: nn.Module, request: Request[MethodOptions]) -> Choice:
        chosen = eligible(request.groups, request.selection)
        scores = request.once(
            "scores", lambda: {g.name: score(model, g, options=request.options, seed=request.seed) for g in chosen}
        )
        return Choice(select(scores, chosen, request.selection))

    return prune


def needed_calibration(name: str, request: Request[MethodOptions]) -> Calibration:
    """The calibration of a request to the method `name`, which cannot do without; ValueError if there is none."""
    if request.calibration is None:
        raise Refusal(
            f"{name} needs calibration data: a callable that runs batches through the model and yields the loss of each"
        )
    return request.calibration


def outline_of_shares(name: str) -> Callable[[nn.Module, Request[MethodOptions]], Choice]:
    """The `outline` of the method `name`, which leaves each group its own share (see `fixed_counts`)."""

    def outline(model: nn.Module, request: Request[MethodOptions]) -> Choice:
        wanted = fixed_counts(name, eligible(request.groups, request.selection), request.selection)
        return Choice({group: tuple(range(n)) for group, n in wanted.items()})

    return outline


def fixed_counts(name: str, groups: Sequence[Group], selection: Selection) -> dict[str, int]:
    """Channels to keep in each group, for the method `name` that cannot compare channels of different layers."""
    if selection.level != "layer":
        raise Refusal(f"{name} takes each layer's share from the user: level 'layer', not {selection.level!r}")
    return counts(groups, selection)
