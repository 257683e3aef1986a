"""Designs guided by pruning: Liu et al., ICLR 2019 (arXiv 1810.05270), section 5.

A pattern (kept shares by stage, see `pattern.py`) of networks that an automatic method pruned gives the widths, or the
densities at the positions of 3x3 kernels, of a new network (`design.py`), which is then trained from scratch.
*Transferred* guided is the same with a pattern of another architecture or data set.

Pre-activation and dense networks keep their trunk, and the layers behind it select their inputs, as network slimming
leaves them (`widths_and_masks.py`); scope `all` narrows every group instead.

Without a budget the ratio is the fraction of all channels (or convolution weights) removed. Which channels stay does
not matter to training from scratch; the L1 criterion chooses them, so that the weights can be inherited as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning.design.budget import read_budget
from pruning.design.pattern import KIND, Pattern, average
from pruning.design.widths_and_masks import Dense, design_masks, design_widths, free_places, pattern_of
from pruning.errors import Refusal
from pruning.graph.norm_channels import NormChannels, keep_and_select
from pruning.methods import l1_filter
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.plan import PruningPlan
from pruning.select import keep_indices
from pruning.select_weights import conv_weights


@dataclass(frozen=True)
class GuidedOptions(MethodOptions):
    """`patterns`: files, averaged; each a pattern, or a plan of the architecture that is pruned. `budget`:
    {"macs": amount} or {"params": amount}, which replaces the ratio; up to 1 it is a share of the dense network's
    cost, above 1 the cost itself. A removed weight counts as no param and no multiply-add.
    """

    patterns: Sequence[str] = field(default=(), metadata={"files": True})  # they count by what is in them
    budget: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.budget is not None:
            read_budget(self.budget, owner="guided")


def prune(model: nn.Module, request: Request[GuidedOptions]) -> Choice:
    """Channels or masks, by what the pattern speaks of."""
    selection, options = request.selection, request.options
    if len(selection.stage_ratios()) > 1 or selection.layers or selection.round_to > 1:
        raise Refusal("guided: the pattern shares out one ratio or budget; no ratio by stage, `layers`, `round_to`")
    if request.example is None:
        raise Refusal("guided: stages are told by the size of their feature maps, which needs an example input")
    dense = Dense(model, request.groups, request.example)
    pattern = read_patterns(options.patterns, dense)
    goal = selection.stage_ratios()[0] if options.budget is None else read_budget(options.budget, owner="guided")
    if pattern.kernels:
        return Choice(masks=design_masks(pattern, dense, conv_weights(model, selection), goal, seed=request.seed))
    places = free_places(model, request.groups, selection)
    widths = design_widths(pattern, dense, places, goal)
    kept = {p.unit.name: keep_indices(channel_scores(model, p), widths[p.unit.name]) for p in places}
    return Choice(*keep_and_select(places, kept, model))


def channel_scores(model: nn.Module, place: NormChannels) -> Tensor:
    """Sum of absolute weights of each channel, shape (width,): of the filters that compute it, or of its readers'."""
    if not place.readers:
        return l1_filter.score(model, place.unit)
    total = torch.zeros(place.unit.width, dtype=torch.float64)
    for reader in place.readers:
        weight = model.get_parameter(f"{reader}.weight").detach()  # (out, width * each, ...), each > 1 behind a flatten
        by_input = weight.double().abs().transpose(0, 1).flatten(1).sum(1)
        total += by_input.view(place.unit.width, -1).sum(1).cpu()
    return total


def read_patterns(files: Sequence[str], dense: Dense) -> Pattern:
    """The mean of files that hold patterns, or plans of the architecture of `dense`."""
    if not files:
        raise Refusal("guided: `patterns` must name at least one file of a pattern or a plan")
    return average([_read(Path(file), dense) for file in files])


def _read(path: Path, dense: Dense) -> Pattern:
    if not path.is_file():
        raise Refusal(f"guided: there is no pattern or plan {path}")
    text = path.read_text(encoding="utf-8")
    if f'"{KIND}"' in text:  # both are JSON; only a pattern names its kind
        return Pattern.from_json(text, source=str(path))
    plan = PruningPlan.from_json(text, source=str(path))
    if not plan.widths.items() <= {g.name: g.width for g in dense.groups}.items():
        raise Refusal(f"{path}: a plan for {plan.arch!r}, not for this network; write its pattern to a file first")
    try:
        return pattern_of(plan, dense)
    except ValueError as error:
        raise Refusal(f"{path}: {error}") from error


METHOD = Method(
    prune=prune,
    options=GuidedOptions,
    predefined=False,
    sets_amount=lambda options: "selection" if options.budget is None else "options",
    follows_patterns=True,
    own_level=lambda options: "layer",
)
