"""What a pruning method is: the one interface that all of them share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from pruning.groups import Group
from pruning.select import Selection, eligible, select

Calibration = Callable[[nn.Module], Tensor]
"""Runs a model over calibration batches and returns its mean loss, so that no method knows the task."""


@dataclass(frozen=True)
class NoOptions:
    """The method has nothing to set."""


@dataclass(frozen=True)
class Request:
    """What a method is asked: the groups it may narrow, how far, and what it may look at."""

    groups: Sequence[Group]
    selection: Selection
    options: Any
    seed: int
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Choice:
    """What a method chose: kept channels by group name."""

    keep: Mapping[str, tuple[int, ...]]


class Score(Protocol):
    """Scores of a group's channels, shape (width,); higher is better."""

    def __call__(self, model: nn.Module, group: Group, *, options: Any, seed: int) -> Tensor: ...


@dataclass(frozen=True)
class Method:
    """An entry of METHODS.

    `prune` must not change the model it is given. `needs` says what `Request.calibration` is used for.
    """

    prune: Callable[[nn.Module, Request], Choice]
    options: type = NoOptions
    needs: Literal["nothing", "activations", "gradients"] = "nothing"


def by_score(score: Score) -> Callable[[nn.Module, Request], Choice]:
    """The `prune` of a method that scores each group on its own and shares the selection."""

    def prune(model: nn.Module, request: Request) -> Choice:
        chosen = eligible(request.groups, request.selection)
        scores = {g.name: score(model, g, options=request.options, seed=request.seed) for g in chosen}
        return Choice(select(scores, chosen, request.selection))

    return prune
