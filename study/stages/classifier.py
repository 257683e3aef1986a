"""The stage that trains a classifier: dense or pruned, by any regime."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from classify.data import Splits
from classify.distillation import Teacher
from classify.evaluate import evaluate_classifier
from classify.models import get_model
from classify.regimes import get_regime
from classify.settings import TrainRun
from classify.train import TrainOutcome, train_classifier
from pruning.cost import TRAINING_FACTOR
from pruning.masked_training import HoldMasks, reinitialise_surviving, widen_surviving
from pruning.methods import Effect
from pruning.surgery import apply
from study.stages.data import open_classification
from study.stages.effects import method_effect, trained_network
from study.stages.given_weights import header, load_given
from study.stages.length import classifier_epochs
from study.stages.network import (
    OF_THE_DATA,
    Network,
    dense_groups,
    dense_network,
    dense_training,
    load_model,
    read_weights,
    save_weights,
)
from study.stages.settings import TrainClassifier
from study.stages.stage import Context, Stage
from training.distributed import is_main
from training.files import write_bytes


def measured_splits(*, untested: bool) -> tuple[str, ...]:
    """The splits that a stage measures its network on: where rates are chosen the test split is not looked at."""
    return ("val",) if untested else ("val", "test")


def accuracy(
    model: nn.Module,
    data: Splits,
    network: Network,
    splits: Sequence[str],
    *,
    correct: Path | None = None,
) -> dict[str, float]:
    """Top-1, top-5 (percent), loss and number of images of each split.

    `correct`: where to keep which test images were classified right.
    """
    found: dict[str, float] = {}
    images = {"val": data.val, "test": data.test}
    for split in splits:
        scores = evaluate_classifier(model, images[split], mean=network.mean, std=network.std)
        found |= {
            f"{split}_top1": scores.top1,
            f"{split}_top5": scores.top5,
            f"{split}_loss": scores.loss,
            f"{split}_images": scores.n,
        }
        if split == "test" and correct is not None:
            # through memory, so that the file is there whole or not at all (`write_bytes`)
            file = io.BytesIO()
            np.save(file, scores.correct.numpy())
            write_bytes(correct, file.getvalue())
    return found


def starting_model(stage: Stage, network: Network, runs: Path) -> nn.Module:
    """The network of a training stage as it is before the first step of a fresh run."""
    # drawn in any case: weights that are read replace it, all but a head that `replace_head` keeps as it is here
    torch.manual_seed(stage.seed)
    model = network.build()
    init = get_regime(stage.read(TrainClassifier).regime).init
    if init in ("inherited", "initial"):
        model.load_state_dict(read_weights(stage.parents[0].run(runs).weights))
    elif init in ("original", "rewound"):
        model = _ticket(stage, network, runs)
    elif network.masks is not None:
        model = random_start(network)  # other numbers than the dense training of this seed began with: no ticket
    if network.masks is not None:
        network.masks.apply(model)
    return model


def random_start(network: Network) -> nn.Module:
    """A classifier with new random weights; those that masks leave are drawn for the fan that they leave.

    Our own networks by the formula of the study; those of torchvision and timm by their constructor's rule, whatever it
    is, as much wider as the study's is than the dense one. Where a constructor draws as the study does, both are one.
    """
    model, masks = network.build(), network.backbone().masks
    if masks is None:
        return model
    if get_model(network.plan.arch).init is None:
        widen_surviving(model, masks)
    else:
        reinitialise_surviving(model, masks)
    return model


def _ticket(stage: Stage, network: Network, runs: Path) -> nn.Module:
    """The pruned network with the weights that the dense one had at its start, or where it kept them."""
    first = dense_training(stage)
    dense = network.dense()
    original = _original_weights(stage, first, dense, runs)
    model = dense.build()
    groups = dense_groups(dense, model) if network.plan.changes_shape else []
    model.load_state_dict(original)
    return apply(model, network.plan, groups)


def _original_weights(stage: Stage, first: Stage, dense: Network, runs: Path) -> Mapping[str, Tensor]:
    """Kept on disk if those of an epoch or of iteration k were asked for; those of iteration 0 follow from the seed."""
    settings = stage.read(TrainClassifier)
    if get_regime(settings.regime).init == "rewound":
        assert settings.rewound_to is not None  # it starts there
        return read_weights(first.run(runs).snapshot_of(settings.rewound_to))
    if first.read(TrainClassifier).snapshot_at:
        return read_weights(first.run(runs).snapshot)
    torch.manual_seed(first.seed)
    return dense.build().state_dict()


def run_train_classifier(context: Context) -> dict[str, object]:
    """Train, or take the weights that are given.

    Artifacts: plan.json, weights.safetensors, correct.npy, and masks.safetensors or snapshots if there are.
    """
    stage, settings = context.stage, context.stage.read(TrainClassifier)
    data = open_classification(settings.dataset, context.machine, context.runs)
    network = Network.load(context.parent) if stage.parents else dense_network(settings, data)
    model = starting_model(stage, network, context.runs).to(context.device)
    costs, dense_costs = network.costs(), network.dense().costs()
    epochs = classifier_epochs(stage, dense_macs=dense_costs["macs"], pruned_macs=costs["macs"])
    said = load_given(model, network, settings) if settings.weights else []
    effects = _effects(stage, network, model)
    if settings.trains:
        outcome = _train(context, model, data, network, epochs, effects)
    else:
        outcome = TrainOutcome(epochs * len(data.train), seconds=0.0, final_loss=float("nan"))
    given: dict[str, object] = {}
    if settings.weights is not None:
        digest = settings.weights.sha256
        given = {"given_weights": {"sha256": digest, "trained_from": settings.trains, "notes": said}}
    images = outcome.images_seen + settings.counted_epochs * len(data.train)
    # one forward pass of the unpruned network for each image seen
    taught = {} if settings.distill is None else {"teacher_macs": dense_costs["macs"] * outcome.images_seen}
    if not is_main():  # of several processes that trained together one writes
        return {}
    own = network.normalization == OF_THE_DATA
    other = [] if own else [f"{network.normalization_note()}, not the data set's"]
    trained = trained_network(network, effects)
    trained.save(context.run)
    save_weights(context.run.weights, model, header(network))
    return {
        "metrics": accuracy(
            model, data, network, measured_splits(untested=settings.untested), correct=context.run.correct
        ),
        # the training is counted by what the network was before it: masks that change were not there from the start
        "network": trained.as_result() | (trained.costs() if trained is not network else costs),
        "data": {
            "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
            "fingerprint": data.fingerprint,
            "notes": [*data.notes, *other],
        },
        **given,
        "epochs": epochs,
        "images_seen": images,
        "precision": None if outcome.precision is None else outcome.precision.as_result(),
        "train_macs": TRAINING_FACTOR * costs["macs"] * images + sum(taught.values()),
        **taught,
        "train_seconds": outcome.seconds,
    }


def train_run(context: Context, network: Network) -> TrainRun:
    """What a stage on this machine adds to a training of `network`."""
    return TrainRun(
        mean=network.mean,
        std=network.std,
        seed=context.stage.seed,
        precision=context.precision,
        compile=context.machine.compile,
        checkpoint_minutes=context.machine.checkpoint_minutes,
    )


def _train(
    context: Context, model: nn.Module, data: Splits, network: Network, epochs: int, effects: Sequence[Effect]
) -> TrainOutcome:
    settings = context.stage.read(TrainClassifier)
    per_epoch = settings.train.steps_per_epoch(len(data.train))
    snapshots = {context.run.snapshot_of(epoch): epoch * per_epoch for epoch in settings.snapshot_epochs}
    if settings.snapshot_at is not None:
        snapshots[context.run.snapshot] = settings.snapshot_at
    own = settings.train.lr_schedule()
    return train_classifier(
        model,
        data.train,
        settings=settings.train.model_copy(update={"epochs": epochs}),
        run=train_run(context, network),
        checkpoint=context.run.checkpoint,
        schedule=get_regime(settings.regime).schedule(own, settings.rewound_to or 0, epochs),
        snapshots=snapshots,
        validation=data.val,
        report=context.report,
        effects=effects,
        teacher=_teacher(context),
    )


def _teacher(context: Context) -> Teacher | None:
    """The unpruned network that this training is distilled from, if it is."""
    distill = context.stage.read(TrainClassifier).distill
    if distill is None:
        return None
    return Teacher(load_model(context.stage.parents[1].run(context.runs)).to(context.device), distill)


def _effects(stage: Stage, network: Network, model: nn.Module) -> list[Effect]:
    """Masks that are held, and what the pruning method adds to the training that comes before it."""
    effects: list[Effect] = [] if network.masks is None else [HoldMasks(model, network.masks)]
    wanted = stage.read(TrainClassifier).effect
    if wanted is not None:
        effects.append(
            method_effect(wanted, model, network, lambda: dense_groups(network, network.build()), stage.seed)
        )
    return effects
