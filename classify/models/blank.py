"""Networks for planning: the layers and shapes of a network, without the time that drawing its weights takes.

Drawing the weights of ImageNet's VGG-11 takes 14 s on a slow core; counting what it costs does not need them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from classify.models import MODELS, build, build_plain, channel_groups, trace_input
from pruning.graph.groups import Group
from pruning.graph.shapes import with_tensors
from pruning.plan import PruningPlan
from pruning.surgery import apply
from training.files import canonical


def build_blank(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> nn.Module:
    """The network that `build` gives, all of whose weights are zero where it is one of ours.

    Others' constructors may need true numbers; their networks come with random weights.
    """
    if name not in MODELS:
        return build(name, num_classes, options)
    with torch.device("meta"):
        model = build_plain(name, num_classes, options)
    return with_tensors(model, _zeros)


def _zeros(like: Tensor) -> Tensor:
    # NumPy's take memory only where they are written to
    return torch.from_numpy(np.zeros(tuple(like.shape), dtype=torch.zeros((), dtype=like.dtype).numpy().dtype))


def rebuild_blank(plan: PruningPlan, num_classes: int) -> nn.Module:
    """The pruned architecture of `plan`, as `build_blank`."""
    model = build_blank(plan.arch, num_classes, plan.options)
    if not plan.changes_shape:
        return model
    return apply(model, plan, _dense_groups(plan.arch, num_classes, canonical(dict(plan.options))))


@lru_cache(maxsize=32)
def _dense_groups(name: str, num_classes: int, options: str) -> Sequence[Group]:
    """The channel groups of an unpruned network, found once in a process; `options` as JSON."""
    given = json.loads(options)
    return channel_groups(name, build_blank(name, num_classes, given), trace_input(name, given))
