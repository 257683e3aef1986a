"""The stage that trains a classifier: dense or pruned, by any regime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from classify.data import Splits
from classify.distributed import is_main
from classify.regimes import budget_epochs, get_regime
from classify.train import TrainOutcome, TrainSettings, train_classifier
from pruning.masked_training import HoldMasks
from pruning.methods import Effect, get_method
from study.accuracy import accuracy
from study.context import Context
from study.data import open_classification
from study.networks import Network, dense_network, method_options, save_weights
from study.stages import Stage
from study.starts import starting_model
from study.weights_file import load_weights, read_weights_file


def run_train_classifier(context: Context) -> dict[str, Any]:
    """Train, or take the weights that are given.

    Artifacts: plan.json, weights.safetensors, and masks.safetensors or snapshot.safetensors if there are.
    """
    settings, stage = context.stage.settings, context.stage
    data = open_classification(settings["dataset"], context.machine)
    network = Network.load(context.parent) if stage.parents else dense_network(settings, data)
    model = starting_model(stage, network, context.runs).to(context.device)
    costs, dense_costs = network.costs(), network.dense().costs()
    epochs = classifier_epochs(stage, dense_macs=dense_costs["macs"], pruned_macs=costs["macs"])
    if "weights" in settings:
        path = Path(settings["weights"]["paths"]["file"])
        load_weights(model, read_weights_file(path), source=str(path))
        outcome = TrainOutcome(epochs * len(data.train), seconds=0.0, final_loss=float("nan"))
    else:
        outcome = _train(context, model, data, network, epochs)
    if not is_main():  # of several processes that trained together one writes
        return {}
    network.save(context.run)
    save_weights(context.run.weights, model)
    return {
        "metrics": accuracy(model, data, network),
        "network": network.as_result() | costs,
        "data": {
            "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
            "fingerprint": data.fingerprint,
            "notes": list(data.notes),
        },
        "epochs": epochs,
        "images_seen": outcome.images_seen,
        "train_macs": 3 * costs["macs"] * outcome.images_seen,
        "train_seconds": outcome.seconds,
    }


def _train(context: Context, model: nn.Module, data: Splits, network: Network, epochs: int) -> TrainOutcome:
    return train_classifier(
        model,
        data.train,
        settings=_train_settings(context, network, epochs),
        checkpoint=context.run.checkpoint,
        validation=data.val,
        report=context.report,
        effects=_effects(context.stage.settings, network, model),
        snapshot=context.run.snapshot,
    )


def classifier_epochs(stage: Stage, *, dense_macs: int, pruned_macs: int) -> int:
    """The epochs of a training stage: its own, or those that its budget comes to."""
    return budget_epochs(
        get_regime(stage.settings["regime"]),
        stage.settings["train"]["epochs"],
        dense_macs=dense_macs,
        pruned_macs=pruned_macs,
        cap=stage.settings["cap"],
        fine_tune_epochs=stage.settings.get("fine_tune_epochs", 0),
    )


def _train_settings(context: Context, network: Network, epochs: int) -> TrainSettings:
    settings, machine = context.stage.settings, context.machine
    return TrainSettings(
        **{**settings["train"], "epochs": epochs, "milestones": tuple(settings["train"]["milestones"])},
        mean=network.mean,
        std=network.std,
        seed=context.stage.seed,
        precision=machine.precision,
        checkpoint_every=machine.checkpoint_every,
        snapshot_at=settings.get("snapshot_at"),
    )


def _effects(settings: Mapping[str, Any], network: Network, model: nn.Module) -> list[Effect]:
    """Masks that are held, and what the pruning method adds to the training that comes before it."""
    effects: list[Effect] = [] if network.masks is None else [HoldMasks(model, network.masks)]
    wanted = settings.get("effect")
    if wanted:
        effect = get_method(wanted["method"]).training_effect
        assert effect is not None
        effects.append(effect(model, method_options(wanted)))
    return effects
