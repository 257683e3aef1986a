"""The same fraction of every layer: the control that shows what a method's choice of widths is worth.

Liu et al., ICLR 2019, section 5 (uniform pruning). A control must cost as much as what it is compared with, so it
takes a budget of MACs or params instead of a ratio: the one ratio that comes nearest to it is found by bisection.
Which channels go is the L1 criterion's choice, or random.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from pruning.design.budget import cost_of_widths, fit, read_budget
from pruning.graph.members import Group
from pruning.methods import l1_filter, random
from pruning.methods.method import Choice, Method, Request
from pruning.select import counts, eligible, keep_indices


@dataclass(frozen=True)
class UniformOptions:
    """`budget`: {"macs": amount} or {"params": amount}, which replaces the ratio; up to 1 it is a share of the
    dense network's cost, above 1 the cost itself. `criterion`: which channels go, `l1` (smallest filters) or `random`.
    """

    budget: Mapping[str, float] | None = None
    criterion: Literal["l1", "random"] = "l1"

    def __post_init__(self) -> None:
        if self.criterion not in ("l1", "random"):
            raise ValueError(f"uniform: criterion {self.criterion!r} is unknown; choices: l1, random")
        if self.budget is not None:
            read_budget(self.budget, owner="uniform")


def prune(model: nn.Module, request: Request) -> Choice:
    """Channels of every group, the same share each, to whole channels."""
    selection, options = request.selection, request.options
    if len(selection.stage_ratios()) > 1 or selection.layers or selection.level != "layer":
        raise ValueError("uniform: one ratio for every layer; no ratio by stage, no `layers`, no level 'global'")
    groups = eligible(request.groups, selection)
    widths = counts(groups, selection) if options.budget is None else _widths_within_budget(model, groups, request)
    score = l1_filter.score if options.criterion == "l1" else random.score
    return Choice({g.name: keep_indices(score(model, g, seed=request.seed), widths[g.name]) for g in groups})


def _widths_within_budget(model: nn.Module, groups: list[Group], request: Request) -> dict[str, int]:
    budget = read_budget(request.options.budget, owner="uniform")
    cost = cost_of_widths(budget.quantity, model, request.groups, request.example)
    target = budget.target(cost({}))

    def widths_at(share: float) -> dict[str, int]:
        return counts(groups, replace(request.selection, ratio=1 - share))

    # the narrowest layer keeps one channel at the lowest share
    return fit(widths_at, cost, target, 1 / min(g.width for g in groups), 1.0)


METHOD = Method(prune=prune, options=UniformOptions, predefined=False)
