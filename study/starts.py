"""What a training starts from: random weights, a parent's, or the dense network's of early on (winning tickets)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from classify.regimes import get_regime
from pruning.masked_training import reinitialise_surviving
from pruning.methods.lottery import rewound_filters
from study.networks import Network, dense_groups, read_weights
from study.stages import Stage


def starting_model(stage: Stage, network: Network, runs: Path) -> nn.Module:
    """The network of a training stage as it is before the first step of a fresh run."""
    torch.manual_seed(stage.seed)
    model = network.build()
    init = get_regime(stage.settings["regime"]).init
    if init == "inherited":
        model.load_state_dict(read_weights(stage.parents[0].run(runs).weights))
    elif init == "original":
        model = _ticket(stage, network, runs)
    elif network.masks is not None:
        model = network.build()  # other numbers than the dense training of this seed began with: no ticket by accident
        reinitialise_surviving(model, network.masks)
    if network.masks is not None:
        network.masks.apply(model)
    return model


def _ticket(stage: Stage, network: Network, runs: Path) -> nn.Module:
    """The pruned network with the weights that the dense one had at its start, or at the iteration it kept."""
    first = dense_training(stage)
    dense = network.dense()
    original = _original_weights(first, dense, runs)
    model = dense.build()
    if not network.plan.changes_shape:
        model.load_state_dict(original)
        return model
    return rewound_filters(model, original, network.plan, dense_groups(dense, model))


def dense_training(stage: Stage) -> Stage:
    """The training of the dense network that a pruned one comes from; ValueError if it comes from none."""
    while stage.parents:
        stage = stage.parents[0]
    if stage.kind != "train_classifier":
        raise ValueError(f"{stage.id} is no training, so there are no weights to rewind to")
    return stage


def _original_weights(first: Stage, dense: Network, runs: Path) -> Mapping[str, Tensor]:
    """Kept on disk if iteration k was asked for; those of iteration 0 follow from the seed."""
    if first.settings.get("snapshot_at"):
        return read_weights(first.run(runs).snapshot)
    torch.manual_seed(first.seed)
    return dense.build().state_dict()
