"""Networks for planning: the layers and shapes of a network, without the time that drawing its weights takes.

Drawing the weights of ImageNet's VGG-11 takes 14 s on a slow core; counting what it costs does not need them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import nn

from classify.models import MODELS, build, channel_groups, construct_alone, trace_input
from pruning.graph.groups import Group
from pruning.graph.shapes import fill_with_zeros
from pruning.plan import PruningPlan
from pruning.surgery import apply
from training.files import canonical


def build_blank(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> nn.Module:
    """The network that `build` gives, all of whose weights are zero where it is one of ours.

    Others' constructors may need true numbers; their networks come with random weights.
    """
    model = _build_hollow(name, num_classes, options)
    fill_with_zeros(model)
    return model


def rebuild_blank(plan: PruningPlan, num_classes: int) -> nn.Module:
    """The pruned architecture of `plan`, as `build_blank`."""
    model = rebuild_hollow(plan, num_classes)
    fill_with_zeros(model)
    return model


def rebuild_hollow(plan: PruningPlan, num_classes: int) -> nn.Module:
    """As `rebuild_blank`, on the meta device where that can be, so that what is built around it copies no weights.

    Not of others' networks, nor of one whose layers choose among the channels of a trunk: their indices are values.
    """
    model = _build_hollow(plan.arch, num_classes, plan.options)
    if not plan.changes_shape:
        return model
    if plan.select or plan.scatter:
        fill_with_zeros(model)
    return apply(model, plan, _dense_groups(plan.arch, num_classes, canonical(dict(plan.options))))


def _build_hollow(name: str, num_classes: int, options: Mapping[str, object] | None) -> nn.Module:
    if name not in MODELS:
        return build(name, num_classes, options)
    with torch.device("meta"):
        return construct_alone(name, num_classes, options)


@lru_cache(maxsize=8)
def _dense_groups(name: str, num_classes: int, options: str) -> Sequence[Group]:
    """The channel groups of the unpruned network, found once; `options` as JSON."""
    given = json.loads(options)
    return channel_groups(name, build_blank(name, num_classes, given), trace_input(name, given))
