"""Networks of the published pruned shapes: built, pruned by L1 norms, checked and counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from classify.models import arch, build, channel_groups, example_input, trace_input
from pruning.cost import count_macs, count_params
from pruning.prune import Pruned
from pruning.targets import get_target, prune_to_shape, scratch_b_epochs


@dataclass(frozen=True)
class Costs:
    """Size of a pruned network and of the dense one, and the epochs of equal compute."""

    params: int
    macs: int
    dense_params: int
    dense_macs: int
    scratch_b_epochs: int


def prune_to_target(
    name: str,
    num_classes: int,
    *,
    model: nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
) -> Pruned:
    """Prune a network to the published shape `name`, channels chosen by L1 norms; no data is needed.

    `model`: a trained dense network of the target's architecture, built with `options` (by default the target's);
    without it a random one is drawn. It is not changed.
    """
    target = get_target(name)
    options = target.options if options is None else options
    dense = build(target.arch, num_classes, options) if model is None else model
    example = trace_input(target.arch, options)
    batch = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    groups = channel_groups(target.arch, dense, example)
    return prune_to_shape(dense, arch(target.arch, options), groups, target, batch=batch)


def target_costs(name: str, small: nn.Module, num_classes: int, *, base_epochs: int | None = None) -> Costs:
    """What `small`, a network of the published shape `name`, costs, and its Scratch-B epochs.

    `base_epochs`: of the dense network; the target's own if None.
    """
    target = get_target(name)
    dense_options = target.options if target.dense_options is None else target.dense_options
    with torch.device("meta"):  # no time for random weights: only the shape is asked
        dense = build(target.arch, num_classes, dense_options)
    dense.to_empty(device="cpu")
    example = example_input(target.arch, dense_options)
    macs, dense_macs = count_macs(small, example), count_macs(dense, example)
    epochs = scratch_b_epochs(base_epochs or target.base_epochs, dense_macs, macs, cap=target.cap)
    return Costs(count_params(small), macs, count_params(dense), dense_macs, epochs)
