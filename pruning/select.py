"""From scores to kept channels: exact counts, per layer or over the whole network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pruning.errors import Refusal
from pruning.graph.members import Group

# int(C * (1 - ratio)) must not lose a channel to floating point: 1 - 0.9 is 0.0999...
_TOLERANCE = 1e-9


Ratio = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Quantity = Literal["macs", "params"]


@dataclass(frozen=True)
class Selection:
    """How many channels to remove, and where. The bounds and meanings are those of a config's keys, too.

    `scope`: groups of channels that one layer computes are `inner`, as in the literature on residual networks.
    `layers`: ratios by name or pattern, which win over `ratio` (see `given_ratio`). With a `target_` the ratio is
    searched (`pruning.by_target`), and `ratio` is not read.
    """

    ratio: Annotated[
        Ratio | tuple[Ratio, ...],
        Field(
            description="Fraction of channels (or weights) removed: one for the whole network, or a list with one for"
            " each stage."
        ),
    ] = 0.5
    level: Annotated[
        Literal["layer", "global"],
        Field(description="Remove this share of every layer, or the lowest scores of the network as a whole."),
    ] = "layer"
    scope: Annotated[
        Literal["inner", "all"],
        Field(
            description="Prune only channels that a single layer computes, or also those coupled by residual"
            " connections."
        ),
    ] = "inner"
    skip: Annotated[tuple[str, ...], Field(description="Layers left whole, by name or pattern such as layer4.*")] = ()
    layers: Mapping[str, Ratio] | None = None
    round_to: Annotated[
        int,
        Field(
            ge=1,
            description="The number of kept channels is rounded to the nearest multiple of this, such as 8 for fast"
            " kernels.",
        ),
    ] = 1
    target_macs: Annotated[
        Share | None,
        Field(
            description="Share of the dense network's multiply-adds to leave, the ratio is searched; null: `ratio` says"
            " it."
        ),
    ] = None
    target_params: Annotated[
        Share | None,
        Field(description="As `target_macs`, of the parameters; a removed weight counts in neither."),
    ] = None

    def __post_init__(self) -> None:
        self._check_target()
        for ratio in [*self.given_ratios(), *(self.layers or {}).values()]:
            if not 0 <= ratio < 1:
                raise Refusal(f"ratio {ratio} is outside 0 <= ratio < 1 (it is the fraction removed)")
        if self.round_to < 1:
            raise Refusal(f"round_to={self.round_to} must be at least 1")
        if self.level == "global" and (not isinstance(self.ratio, float | int) or self.layers or self.round_to > 1):
            raise Refusal("level 'global' takes one ratio; `layers`, ratios by stage and `round_to` need level 'layer'")

    def _check_target(self) -> None:
        for name, share in (("target_macs", self.target_macs), ("target_params", self.target_params)):
            if share is not None and not 0 < share < 1:
                raise Refusal(f"{name}={share} is outside 0 < {name} < 1 (it is the share of the network that is left)")
        if self.target_macs is not None and self.target_params is not None:
            raise Refusal("target_macs and target_params: one ratio cannot meet both; choose one")

    @property
    def cost_target(self) -> tuple[Quantity, float] | None:
        """What is to be left of the dense network, and the share of it; None where ratios say how much goes."""
        if self.target_macs is not None:
            return "macs", self.target_macs
        return None if self.target_params is None else ("params", self.target_params)

    def at(self, ratio: float) -> "Selection":
        """With this ratio in the place of the target."""
        return replace(self, ratio=ratio, target_macs=None, target_params=None)

    def given_ratios(self) -> tuple[float, ...]:
        """The ratios by stage as they were given, which are not those that hold where there is a target."""
        return tuple(self.ratio) if isinstance(self.ratio, Sequence) else (float(self.ratio),)

    def stage_ratios(self) -> tuple[float, ...]:
        """The ratios by stage; one where all stages share it. RuntimeError where a target's is not known yet."""
        if self.cost_target is not None:
            raise RuntimeError("the ratio of a selection by target is not known before it was searched")
        return self.given_ratios()

    def skips(self, name: str) -> bool:
        """Is the layer, group or block of this name left whole?"""
        return any(fnmatchcase(name, pattern) for pattern in self.skip)

    def skips_group(self, group: Group) -> bool:
        """Is it left whole, since one of the layers that compute its channels is to be?"""
        return any(self.skips(name) for name in (group.name, *group.producers))


def keep_indices(scores: Tensor, n_keep: int) -> tuple[int, ...]:
    """Indices of the `n_keep` highest scores, ascending; ties keep the lower index."""
    if not 1 <= n_keep <= scores.numel():
        raise Refusal(f"n_keep={n_keep} is outside 1..{scores.numel()}")
    if not bool(torch.isfinite(scores).all()):
        raise Refusal("a score is not finite")
    return tuple(torch.argsort(scores, descending=True, stable=True)[:n_keep].sort().values.tolist())


def count_to_keep(width: int, ratio: float, round_to: int = 1) -> int:
    """int(width * (1 - ratio)), or the nearest multiple of `round_to` within `width`."""
    n_keep = math.floor(width * (1 - ratio) + _TOLERANCE)
    # never to zero, and no multiple above the width: the layer is then left as it is
    if round_to > 1:
        n_keep = min(width, max(round_to, round_to * round(n_keep / round_to)))
    return n_keep


def count_left(total: int, ratio: float) -> int:
    """total - int(total * ratio), for one ranking over the whole network: there the literature counts what goes."""
    return total - math.floor(total * ratio + _TOLERANCE)


def eligible(groups: Sequence[Group], selection: Selection) -> list[Group]:
    """The groups that `selection` covers, skipped ones left out; unknown names are refused."""
    names = [group.name for group in groups]
    producers = [producer for group in groups for producer in group.producers]
    for patterns, known in ((selection.skip, [*names, *producers]), (selection.layers or {}, names)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise Refusal(f"no layer matches {pattern!r}; prunable layers: {', '.join(names)}")
    # Scope `all` is an explicit wish for everything, so a group that cannot be narrowed is refused there. Scope `inner`
    # is the usual default, which takes what it can; `achieved` counts what it could not.
    chosen = [g for g in groups if (g.inner or selection.scope == "all") and not selection.skips_group(g)]
    for group in chosen:
        if group.fixed and selection.scope == "all":
            raise Refusal(f"{group.name} cannot be narrowed: {group.fixed}; add it to `skip` or use scope 'inner'")
    chosen = [g for g in chosen if not g.fixed]
    if not chosen:
        more = sum(not g.fixed and not selection.skips_group(g) for g in groups)
        wider = f"; scope 'all' has {more}" if more else ""
        raise Refusal(f"nothing to prune: the network has no channel group in this scope that is not skipped{wider}")
    return chosen


def check_stages(selection: Selection, stages: int, *, key: str = "ratio") -> None:
    """ValueError for ratios of more stages than a network's `stages`, of which the last would go nowhere."""
    ratios = selection.given_ratios()
    if len(ratios) > max(1, stages):
        raise Refusal(f"{key}: {list(ratios)} are ratios of {len(ratios)} stages, and the network has {stages}")


class NotNarrowed(Refusal):
    """A ratio by name or pattern is asked of layers that stay whole."""


def check_layers(groups: Sequence[Group], selection: Selection) -> None:
    """NotNarrowed for a ratio in `layers` that no group of those to be narrowed has the name for."""
    for pattern, ratio in (selection.layers or {}).items():
        if not any(fnmatchcase(group.name, pattern) for group in groups):
            raise NotNarrowed(
                f"layers: {pattern!r} asks {ratio} of layers that are not narrowed here: they are skipped, outside of"
                f" scope {selection.scope!r} or cannot lose channels; narrowed are"
                f" {', '.join(group.name for group in groups)}"
            )


def counts(groups: Sequence[Group], selection: Selection) -> dict[str, int]:
    """Channels to keep in each of the groups to be narrowed, by a ratio that does not depend on weights."""
    check_layers(groups, selection)
    wanted = {}
    for group in groups:
        ratio = ratio_of(group, selection)
        wanted[group.name] = count_to_keep(group.width, ratio, selection.round_to)
        if wanted[group.name] < 1:
            raise Refusal(
                f"ratio {ratio} leaves no channel of {group.width} in {group.name};"
                f" the highest that leaves one is {1 - 1 / group.width:g}"
            )
    return wanted


def select(scores: Mapping[str, Tensor], groups: Sequence[Group], selection: Selection) -> dict[str, tuple[int, ...]]:
    """Kept channels of each group; `scores[name]` has shape (width,), higher is better."""
    if selection.level == "global":
        return _select_global(scores, groups, selection.stage_ratios()[0])
    wanted = counts(groups, selection)
    return {name: keep_indices(scores[name], n_keep) for name, n_keep in wanted.items()}


def limits(groups: Sequence[Group], selection: Selection) -> tuple[int, dict[str, int]]:
    """How many channels go of all groups, and how many stay at least in each."""
    if selection.level == "global":
        return _count_global(groups, selection.stage_ratios()[0]), {group.name: 1 for group in groups}
    wanted = counts(groups, selection)
    return sum(group.width for group in groups) - sum(wanted.values()), wanted


def _count_global(groups: Sequence[Group], ratio: float) -> int:
    """floor(ratio * total), where that leaves every group a channel."""
    total = sum(group.width for group in groups)
    n_remove = total - count_left(total, ratio)
    if n_remove > total - len(groups):
        highest = 1 - len(groups) / total
        raise Refusal(
            f"ratio {ratio} would empty a layer: it removes {n_remove} of {total} channels in {len(groups)}"
            f" layers; the highest that leaves one in each is {highest:g}"
        )
    return n_remove


def _select_global(scores: Mapping[str, Tensor], groups: Sequence[Group], ratio: float) -> dict[str, tuple[int, ...]]:
    """Remove exactly floor(ratio * total) channels; each group's best channel is out of reach."""
    # One row (total,) of all channels, in the order of the groups; a group's part ends at its entry of `ends`.
    pooled = torch.cat([scores[g.name].double() for g in groups])
    safe = torch.zeros(len(pooled), dtype=torch.bool)
    ends = torch.tensor([g.width for g in groups]).cumsum(0).tolist()
    for group, end in zip(groups, ends, strict=True):
        safe[end - group.width + keep_indices(scores[group.name], 1)[0]] = True
    n_remove = _count_global(groups, ratio)
    # remove from the lowest score up; among ties the higher index goes first, as a stable order turned round has it
    order = torch.argsort(pooled, descending=True, stable=True).flip(0)
    removed = order[~safe[order]][:n_remove]
    kept = torch.ones(len(pooled), dtype=torch.bool)
    kept[removed] = False
    return {
        g.name: tuple(kept[end - g.width : end].nonzero().flatten().tolist())
        for g, end in zip(groups, ends, strict=True)
    }


def ratio_of(group: Group, selection: Selection) -> float:
    """The ratio that a selection by layer asks of this group: its own in `layers`, else its stage's, else the one."""
    own = given_ratio(group.name, selection.layers or {})
    if own is not None:
        return own
    ratios = selection.stage_ratios()
    if len(ratios) == 1:
        return ratios[0]
    if not 0 <= group.stage < len(ratios):
        raise Refusal(f"{len(ratios)} ratios by stage, but {group.name} is in stage {group.stage + 1} (0: in none)")
    return ratios[group.stage]


def given_ratio(name: str, ratios: Mapping[str, float]) -> float | None:
    """The ratio by name or pattern of the layer `name`, None where there is none; its name in full wins over patterns.

    ValueError where several patterns fit it and differ. The order of `ratios` does not matter, as in a stage's hash.
    """
    if name in ratios:
        return ratios[name]
    fitting = [pattern for pattern in ratios if fnmatchcase(name, pattern)]
    if len({ratios[pattern] for pattern in fitting}) > 1:
        raise Refusal(
            f"layers: {' and '.join(map(repr, fitting))} fit {name} and give it different ratios; name it in full"
        )
    return ratios[fitting[0]] if fitting else None
