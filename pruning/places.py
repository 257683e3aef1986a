"""Where a design may remove channels: groups that are narrowed, and trunks whose readers select their inputs.

Pre-activation and dense networks keep the width of their trunk; what network slimming (arXiv 1708.06519) removes
there are inputs of the layers that read a BatchNorm on it. A design that follows its pattern removes the same.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from pruning.groups import Group
from pruning.norm_channels import NormChannels, input_selections
from pruning.plan import PruningPlan
from pruning.select import Selection, eligible


def free_places(model: nn.Module, groups: Sequence[Group], selection: Selection) -> list[NormChannels]:
    """What `selection` lets a design narrow: groups, and the inputs of layers that read a trunk behind a BatchNorm.

    A group that such a BatchNorm scales belongs to the trunk and keeps its width. In scope `all` nothing is selected,
    the trunk itself is narrowed.
    """
    if selection.scope == "all":
        return [NormChannels(group, ()) for group in eligible(groups, selection)]
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

    Empty for a plan that selects nowhere. One that does could have selected behind every BatchNorm on a trunk: those
    that it does not name count whole. A layer elsewhere that selects is a place of its own. Places are named as
    the BatchNorm, or as that layer; ValueError for a plan of another network.
    """
    if not plan.select:
        return {}
    read = {name: _inputs_read(plan, model, name) for name in plan.select}
    counts: dict[str, tuple[int, int]] = {}
    for place in input_selections(model, groups):
        n_inputs = int(model.get_parameter(f"{place.readers[0]}.weight").shape[1])
        # a channel is there as long as one of the layers reads it
        union = set().union(*(read.pop(reader, (range(n_inputs), 0))[0] for reader in place.readers))
        counts[place.unit.name] = (len(union) * place.unit.width // n_inputs, place.unit.width)
    return counts | {name: (len(inputs), n_inputs) for name, (inputs, n_inputs) in read.items()}


def _inputs_read(plan: PruningPlan, model: nn.Module, name: str) -> tuple[Sequence[int], int]:
    """The inputs that a layer selects, and how many the dense one has."""
    layer = dict(model.named_modules()).get(name)
    inputs = plan.select[name]
    if not isinstance(layer, nn.Conv2d | nn.Linear) or inputs[-1] >= layer.weight.shape[1]:
        raise ValueError(f"a plan for {plan.arch!r}, not for this network: {name!r} is to read channel {inputs[-1]}")
    return inputs, int(layer.weight.shape[1])
