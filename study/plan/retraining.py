"""What the retraining of a pruned network takes from the dense network's training: rates, and weights to go back to."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from classify.regimes import FINE_TUNE, get_regime
from classify.settings import TrainSettings
from pruning.errors import Refusal
from study.config.sections import Classifier
from study.stages.network import dense_training
from study.stages.settings import TrainClassifier
from study.stages.stage import Stage
from training.options import changed

# what the rate of each step follows from; all else of a retraining stays as `fine_tune` says
_RATES = ("lr", "gamma", "schedule", "milestones", "warmup")
Kept = Mapping[str, Collection[int]]
"""The epochs whose weights a dense training keeps, by the hash of the training that keeps none."""


def rates_of(training: Stage) -> dict[str, object]:
    """The keys of a training that say its learning rate and the course of it."""
    return {key: training.settings["train"][key] for key in _RATES}


def rewound_to(dense: int, again: int, unit: str) -> int:
    """Where the last `again` epochs or iterations of a training of `dense` begin."""
    if not 0 < again <= dense:
        raise Refusal(f"the last {again} {unit} of a training are asked for once more, which has {dense}")
    return dense - again


def where_rewound(pruned: Stage, settings: Mapping[str, Any]) -> int:
    """The epoch of the dense training that a retraining with these settings begins at.

    ValueError where the dense training is shorter, or its weights are wanted and not kept.
    """
    regime, dense = settings["regime"], dense_training(pruned).read(TrainClassifier)
    start = rewound_to(dense.train.epochs, settings["train"]["epochs"], "epochs")
    if get_regime(regime).init == "rewound" and start not in dense.snapshot_epochs:
        raise Refusal(
            f"{regime} goes back to the weights of epoch {start}, which the dense training does not keep: it is told by"
            f" classifier.retrain: {regime} and the epochs of classifier.train and classifier.fine_tune"
        )
    return start


def remembering(dense: Stage, classifier: Classifier, kept: Kept) -> Stage:
    """The dense training with the epochs whose weights it keeps: for this retraining, and those that `kept` says."""
    epochs = set(kept.get(dense.hash, ()))
    if get_regime(classifier.retrain).init == "rewound" and classifier.weights is None:
        # as many epochs are trained once more as fine-tuning has, so the weights are those before the last ones
        again = classifier.training(FINE_TUNE).epochs
        epochs.add(rewound_to(dense.read(TrainClassifier).train.epochs, again, "epochs"))
    return replace(dense, settings={**dense.settings, "snapshot_epochs": sorted(epochs)}) if epochs else dense


def detector_before(pruned: Stage) -> Stage:
    """The training of a detector that pruning inside it came after, before any retraining."""
    training = pruned.parents[0]
    # behind an earlier pruning inside the detector it is itself a retraining
    while training.parents[0].kind == "prune_detector":
        training = training.parents[0].parents[0]
    return training


def detector_retraining(regime: str, pruned: Stage, iterations: int) -> dict[str, object]:
    """What the settings of a detector's retraining say of its regime."""
    if not get_regime(regime).last_part:
        return {"retrain": regime}
    before = detector_before(pruned).settings["train"]["iterations"]
    return {"retrain": regime, "rewound_to": rewound_to(before, iterations, "iterations")}


def kept_by(stages: Iterable[Stage]) -> dict[str, set[int]]:
    """The epochs whose weights these trainings keep: equal trainings keep what any of them does."""
    found: dict[str, set[int]] = {}
    for stage in stages:
        if epochs := stage.settings.get("snapshot_epochs"):
            # `remembering` asks by a training that keeps nothing yet, and has the hash of that
            rest = {key: value for key, value in stage.settings.items() if key != "snapshot_epochs"}
            found.setdefault(replace(stage, settings=rest).hash, set()).update(epochs)
    return found


def between_layers(fine_tuning: TrainSettings, changes: dict[str, object]) -> dict[str, object]:
    """The settings of the training after each layer: as fine-tuning, but for `changes` and at a constant rate."""
    constant = {**changes, "schedule": "constant", "warmup": 0.0}
    return changed(fine_tuning, constant, "prune.between_layers").model_dump(mode="json")
