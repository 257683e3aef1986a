"""Networks for planning: the layers and shapes of a network, without the time that drawing its weights takes.

Drawing the weights of ImageNet's VGG-11 takes 14 s on a slow core; counting what it costs does not need them.
"""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import nn

from classify.models import MODELS, build, channel_groups, trace_input
from pruning.plan import PruningPlan
from pruning.surgery import apply


def build_blank(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> nn.Module:
    """The network that `build` gives, all of whose weights are zero where it is one of ours.

    Others' constructors may need true numbers; their networks come with random weights.
    """
    if name not in MODELS:
        return build(name, num_classes, options)
    with torch.device("meta"):
        model = build(name, num_classes, options)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in chain(model.parameters(), model.buffers()):
            tensor.zero_()
    return model


def rebuild_blank(plan: PruningPlan, num_classes: int) -> nn.Module:
    """The pruned architecture of `plan`, as `build_blank`."""
    model = build_blank(plan.arch, num_classes, plan.options)
    if not plan.changes_shape:
        return model
    return apply(model, plan, channel_groups(plan.arch, model, trace_input(plan.arch, plan.options)))
