"""The stages of the classification half: train a classifier, prune a classifier."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data import Splits
from classify.data.augment import normalize
from classify.data.images import balanced_indices
from classify.evaluate import evaluate_classifier, evaluation_mode
from classify.regimes import budget_epochs, get_regime
from classify.train import TrainSettings, train_classifier
from pruning.methods import Effect, get_method
from pruning.prune import prune, prune_by_choice
from pruning.targets import choose_for_target, get_target
from study.context import Context
from study.data import open_classification
from study.networks import (
    Network,
    dense_groups,
    dense_network,
    is_structural,
    load_model,
    method_options,
    read_weights,
    save_weights,
    selection_of,
)
from study.stages import Stage
from study.store import RunDir

_CALIBRATION_IMAGES = 512


def run_train_classifier(context: Context) -> dict[str, Any]:
    """Train from random or inherited weights; artifacts: plan.json, weights.safetensors."""
    settings, stage = context.stage.settings, context.stage
    data = open_classification(settings["dataset"], context.machine.data_root)
    network = Network.load(context.parent) if stage.parents else dense_network(settings, data)
    torch.manual_seed(stage.seed)
    model = network.build()
    if get_regime(settings["regime"]).init == "inherited":
        model.load_state_dict(read_weights(context.parent.weights))
    epochs = classifier_epochs(stage, network)
    training = {**settings["train"], "epochs": epochs, "milestones": tuple(settings["train"]["milestones"])}
    train_settings = TrainSettings(
        **training,
        mean=network.mean,
        std=network.std,
        seed=stage.seed,
        precision=context.machine.precision,
        checkpoint_every=context.machine.checkpoint_every,
    )
    outcome = train_classifier(
        model.to(context.device),
        data.train,
        settings=train_settings,
        checkpoint=context.run.checkpoint,
        validation=data.val,
        report=context.report,
        effects=_effects(settings, model),
    )
    network.save(context.run)
    save_weights(context.run.weights, model)
    costs = network.costs()
    return {
        "metrics": _accuracy(model, data, network),
        "network": network.as_result() | costs,
        "epochs": epochs,
        "images_seen": outcome.images_seen,
        "train_macs": 3 * costs["macs"] * outcome.images_seen,
        "train_seconds": outcome.seconds,
    }


def run_prune(context: Context) -> dict[str, Any]:
    """Prune the parent's classifier, or the untrained one where only the shape is wanted."""
    settings, stage = context.stage.settings, context.stage
    selection, method = selection_of(settings), settings["method"]
    if stage.parents:
        network, model = Network.load(context.parent), load_model(context.parent)
        settings_of_data = _classifier_settings(stage)
    else:
        settings_of_data = dict(settings)
    data = open_classification(settings_of_data["dataset"], context.machine.data_root)
    if not stage.parents:
        network = dense_network(settings, data)
        torch.manual_seed(stage.seed)
        model = network.build()
    batch = normalize(data.train.take(torch.arange(8)), network.mean, network.std)
    groups = dense_groups(network, model)
    if is_structural(settings["target"]):
        choice = choose_for_target(get_target(settings["target"]), model, groups)
        pruned = prune_by_choice(model, network.arch, groups, choice, batch=batch)
    else:
        pruned = prune(
            model,
            network.arch,
            groups,
            method,
            selection,
            batch=batch,
            seed=stage.seed,
            options=method_options(settings),
            calibration=_calibration(data, network) if get_method(method).needs != "nothing" else None,
        )
    if pruned.masks:
        raise ValueError(f"{method} removes single weights, and a study compares routes that remove channels")
    small = Network(network.plan.then(pruned.plan), network.num_classes, network.image_size, network.mean, network.std)
    small.save(context.run)
    save_weights(context.run.weights, pruned.model)
    return {
        "metrics": _accuracy(pruned.model, data, network) if stage.parents else {},
        "network": small.as_result() | small.costs(),
        "dense": network.dense().costs(),
        "masked_equals_small": pruned.difference,
        "train_macs": 0,
    }


def classifier_epochs(stage: Stage, network: Network) -> int:
    """The epochs of a training stage: its own, or those that its budget comes to."""
    regime = get_regime(stage.settings["regime"])
    epochs = stage.settings["train"]["epochs"]
    if regime.budget != "same_compute":
        return epochs
    dense, pruned = network.dense().costs()["macs"], network.costs()["macs"]
    return budget_epochs(regime, epochs, dense_macs=dense, pruned_macs=pruned, cap=stage.settings["cap"])


def _effects(settings: Any, model: nn.Module) -> list[Effect]:
    """What the pruning method adds to the training that comes before it."""
    wanted = settings.get("effect")
    if not wanted:
        return []
    effect = get_method(wanted["method"]).training_effect
    assert effect is not None
    return [effect(model, method_options(wanted))]


def _calibration(data: Splits, network: Network) -> Any:
    """Cross-entropy over training images, as many of each class, by which activations or gradients are seen."""
    chosen = balanced_indices(data.train.labels, _CALIBRATION_IMAGES)
    images = normalize(data.train.take(chosen), network.mean, network.std)
    labels = data.train.labels[chosen]

    def loss(model: nn.Module) -> Tensor:
        with evaluation_mode(model):
            parts = zip(images.split(64), labels.split(64), strict=True)
            return torch.stack([F.cross_entropy(model(x), y, reduction="sum") for x, y in parts]).sum() / len(labels)

    return loss


def _accuracy(model: nn.Module, data: Splits, network: Network) -> dict[str, Any]:
    """Accuracy on validation and test, read once, with the number of images."""
    found: dict[str, Any] = {}
    for split, images in (("val", data.val), ("test", data.test)):
        scores = evaluate_classifier(model, images, mean=network.mean, std=network.std)
        found |= {f"{split}_top1": scores.top1, f"{split}_loss": scores.loss, f"{split}_images": scores.n}
    return found


def _classifier_settings(stage: Stage) -> dict[str, Any]:
    """The settings of the nearest stage before that names a data set."""
    for ancestor in reversed(stage.with_ancestors()):
        if "dataset" in ancestor.settings:
            return dict(ancestor.settings)
    raise ValueError(f"no stage before {stage.id} names a classification data set")


def artifacts(run: RunDir) -> list[str]:
    """File names that a finished stage of either kind has."""
    return [run.plan.name, run.weights.name]
