"""Patterns: what pruned networks have in common, stage by stage, from which others can be designed.

Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (arXiv 1810.05270), section 5: average over the layers
of a stage what an automatic method left, and build a network of that shape. A stage is all layers whose output
feature maps have the same size; a linear layer's is 1x1. Inputs that layers select behind a BatchNorm (see
`free_places`) belong to the stage of the BatchNorm, where their channels are.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch

from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.plan import PruningPlan

KIND, FORMAT = "pruning-pattern", 1


@dataclass(frozen=True)
class Pattern:
    """Kept shares (0 to 1) by stage, first stage first, of channels or of single weights.

    `widths`: share of the channels. `kernels`: share of the weights at each position of 3x3 kernels, row by row;
    `others`: share of the weights of all other convolutions. `sources`: how many networks are averaged. Where a
    stage has only 3x3 convolutions or none, the one takes its mean from the other.
    """

    widths: tuple[float, ...] = ()
    kernels: tuple[tuple[float, ...], ...] = ()
    others: tuple[float, ...] = ()
    sources: int = 1

    def __post_init__(self) -> None:
        if bool(self.widths) == bool(self.kernels) or len(self.kernels) != len(self.others):
            raise Refusal("a pattern has `widths` by stage, or `kernels` and `others` by stage")
        shares = [*self.widths, *self.others, *(share for kernel in self.kernels for share in kernel)]
        if not all(0 <= share <= 1 for share in shares) or not all(share > 0 for share in self.widths):
            raise Refusal(f"a pattern's shares must lie in 0..1, those of channels above 0, not {shares}")
        if not any(shares) or any(len(kernel) != 9 for kernel in self.kernels):
            raise Refusal("a pattern of weights has nine shares to a kernel, and not all of them are zero")

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.widths or self.kernels)

    def stage_at(self, stage: int, stages: int) -> int:
        """The stage of this pattern for stage `stage` of a network of `stages`: the one at the same relative depth."""
        # by the middle of the stage, which lies within one stage here: of four, two stages read the second and the
        # fourth; of two, four read the first, first, second, second
        return int((stage + 0.5) / stages * self.stages)

    def to_json(self) -> str:
        """As text; the inverse is `from_json`."""
        return json.dumps({"kind": KIND, "format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "pattern") -> "Pattern":
        """Inverse of `to_json`; ValueError names `source`."""
        try:
            data = json.loads(text)
            if data["kind"] != KIND or data["format"] != FORMAT:
                raise Refusal(f"{source}: not a pruning pattern of format {FORMAT}")
            kernels = tuple(tuple(kernel) for kernel in data["kernels"])
            return cls(tuple(data["widths"]), kernels, tuple(data["others"]), data["sources"])
        except json.JSONDecodeError as error:
            raise Refusal(f"{source}: not JSON ({error})") from error
        except (KeyError, TypeError) as error:
            raise Refusal(f"{source}: not a pruning pattern ({type(error).__name__}: {error})") from error


def stages_of(names: Iterable[str], areas: Mapping[str, int]) -> dict[str, int]:
    """The stage of each named layer, counted from 0 over these layers only: the largest feature map comes first."""
    names = list(names)
    missing = [name for name in names if name not in areas]
    if missing:
        raise Refusal(f"the network does not run these layers: {', '.join(missing)}")
    order = sorted({areas[name] for name in names}, reverse=True)
    return {name: order.index(areas[name]) for name in names}


def pattern_from_plan(
    plan: PruningPlan, areas: Mapping[str, int], selected: Mapping[str, tuple[int, int]] | None = None
) -> Pattern:
    """Kept share of the channels of each stage, over the groups that `plan` lists; `areas` of the dense network.

    `selected`: kept and dense channels where layers select their inputs, which count alike (see `free_places`). Dropped
    blocks have no part in it.
    """
    counts = {name: (len(kept), plan.widths[name]) for name, kept in plan.keep.items()} | dict(selected or {})
    if not counts:
        raise Refusal(f"the plan for {plan.arch!r} narrows and selects no channels, so it has no pattern of widths")
    stages = stages_of(counts, areas)
    # channels are added up before dividing, so that wide layers count for more than narrow ones of their stage
    kept = [0] * (max(stages.values()) + 1)
    dense = list(kept)
    for name, stage in stages.items():
        kept[stage] += counts[name][0]
        dense[stage] += counts[name][1]
    return Pattern(widths=tuple(k / d for k, d in zip(kept, dense, strict=True)))


def pattern_from_masks(masks: Masks, areas: Mapping[str, int]) -> Pattern:
    """Kept share of the weights at each position of the 3x3 kernels of each stage, and of its other convolutions."""
    stages = stages_of(masks, {f"{name}.weight": area for name, area in areas.items()})
    kernels, others = [], []
    for stage in range(max(stages.values()) + 1):
        members = [masks[name] for name, s in stages.items() if s == stage]
        small = [mask.flatten(0, 1).flatten(1) for mask in members if mask.shape[2:] == (3, 3)]  # (out * in, 9)
        rest = [mask.flatten() for mask in members if mask.shape[2:] != (3, 3)]
        # over all 3x3 kernels of the stage, (9,); a stage that has none of a sort takes the mean of the other sort
        kernel = torch.cat(small).double().mean(0).tolist() if small else None
        other = float(torch.cat(rest).double().mean()) if rest else sum(kernel or ()) / 9
        kernels.append(tuple(kernel or [other] * 9))
        others.append(other)
    return Pattern(kernels=tuple(kernels), others=tuple(others))


def average(patterns: Sequence[Pattern]) -> Pattern:
    """The mean of patterns of several seeds or networks, each weighted by how many it already averages."""
    if not patterns:
        raise Refusal("there is no pattern to average")
    for a, b in pairwise(patterns):
        if (a.stages, bool(a.widths)) != (b.stages, bool(b.widths)):
            raise Refusal(f"patterns differ in kind or number of stages: {a.stages} and {b.stages}")
    # so that averaging averages is the same as averaging all the networks at once
    weights = [pattern.sources for pattern in patterns]
    kernels = zip(*(pattern.kernels for pattern in patterns), strict=True)
    return Pattern(
        widths=_mean([pattern.widths for pattern in patterns], weights),
        kernels=tuple(_mean(stage, weights) for stage in kernels),
        others=_mean([pattern.others for pattern in patterns], weights),
        sources=sum(weights),
    )


def _mean(rows: Sequence[Sequence[float]], weights: Sequence[int]) -> tuple[float, ...]:
    columns = zip(*rows, strict=True)
    return tuple(sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights) for column in columns)
