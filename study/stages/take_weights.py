"""The stage that takes weights for a backbone where no classification data is at hand: nothing is trained or tested."""

import torch

from study.stages.given_weights import NOT_COUNTED, header, load_taken
from study.stages.network import made_network, save_weights
from study.stages.settings import TakeWeights
from study.stages.stage import Context


def run_take_weights(context: Context) -> dict[str, object]:
    """Load the weights; artifacts: plan.json, weights.safetensors."""
    settings = context.stage.read(TakeWeights)
    network, given = made_network(settings), settings.weights
    # for the head, which these weights may not have
    torch.manual_seed(context.stage.seed)
    model = network.build()
    notes = load_taken(model, network, given)
    network.save(context.run)
    save_weights(context.run.weights, model, header(network))
    return {
        "metrics": {},
        "network": network.as_result() | network.costs(),
        "given_weights": {"name": given.name, "sha256": given.sha256, "trained_from": False, "notes": notes},
        "train_macs": 0,
        "pretraining": NOT_COUNTED,
    }
