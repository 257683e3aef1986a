"""The same fraction of every layer: the control that shows what a method's choice of widths is worth.

Liu et al., ICLR 2019, section 5 (uniform pruning). It is the design of a flat pattern (`guided.py`): the same places
are narrowed or select their inputs, in the same numbers. The channels left of the network are met exactly, layers
round by largest remainders. A control must cost as much as what it is compared with, so it takes a budget of MACs or
params instead of a ratio. Which channels go is the L1 criterion's choice, or random.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pruning.design.budget import read_budget
from pruning.design.widths_and_masks import FLAT, Dense, design_widths, free_places
from pruning.errors import Refusal
from pruning.graph.norm_channels import NormChannels, keep_and_select
from pruning.methods import random
from pruning.methods.guided import channel_scores
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.select import counts, keep_indices


@dataclass(frozen=True)
class UniformOptions(MethodOptions):
    """`budget`: {"macs": amount} or {"params": amount}, which replaces the ratio; up to 1 it is a share of the
    dense network's cost, above 1 the cost itself. `criterion`: which channels go, `l1` (smallest filters) or `random`.
    """

    budget: Mapping[str, float] | None = None
    criterion: Literal["l1", "random"] = "l1"

    def __post_init__(self) -> None:
        if self.criterion not in ("l1", "random"):
            raise Refusal(f"uniform: criterion {self.criterion!r} is unknown; choices: l1, random")
        if self.budget is not None:
            read_budget(self.budget, owner="uniform")


def prune(model: nn.Module, request: Request[UniformOptions]) -> Choice:
    """Channels of every place that a design may narrow, the same share each, to whole channels."""
    selection, options = request.selection, request.options
    if len(selection.stage_ratios()) > 1 or selection.layers or selection.level != "layer":
        raise Refusal("uniform: one ratio for every layer; no ratio by stage, no `layers`, no level 'global'")
    places = free_places(model, request.groups, selection)
    if selection.round_to > 1:
        if options.budget is not None:
            raise Refusal("uniform: a budget is met to single channels; leave out `round_to`")
        widths = counts([place.unit for place in places], selection)
    else:
        goal = selection.stage_ratios()[0] if options.budget is None else read_budget(options.budget, owner="uniform")
        widths = design_widths(FLAT, Dense(model, request.groups, request.example), places, goal)
    kept = {p.unit.name: keep_indices(_scores(model, p, request), widths[p.unit.name]) for p in places}
    return Choice(*keep_and_select(places, kept, model))


def _scores(model: nn.Module, place: NormChannels, request: Request[UniformOptions]) -> Tensor:
    if request.options.criterion == "random":
        return random.score(model, place.unit, seed=request.seed)
    return channel_scores(model, place)


METHOD = Method(
    prune=prune,
    options=UniformOptions,
    predefined=False,
    sets_amount=lambda options: "selection" if options.budget is None else "options",
)
