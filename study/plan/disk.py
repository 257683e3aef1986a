"""What a study leaves on the disk: what is there, and of stages that are left what they will write, estimated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detect.data.open import open_detection
from pruning.methods import get_method
from study.plan.estimate import Estimator
from study.stages.progress import size_in_words
from study.stages.settings import Cut, Evaluate, TrainClassifier
from study.stages.stage import Stage

_WEIGHT, _MASK = 4, 1  # bytes
_IN_CHECKPOINT = 3 * _WEIGHT  # of a weight: itself, SGD's momentum, and the best one so far where a detector keeps that
_CHECKPOINTS = 2  # that a training keeps
_FOUND, _MOST_FOUND = 50, 100  # bytes of a detection, packed, with its matches (44 + 4 on BCCD); of an image
_PIXEL = 2  # bytes, in a PNG of a photograph


@dataclass(frozen=True)
class Disk:
    """Bytes in the end, those that are there already, and those of checkpoints until then."""

    total: int
    there: int
    checkpoints: int

    def __str__(self) -> str:
        there = f", {size_in_words(self.there)} of it there already" if self.there else ""
        more = (
            f"; up to {size_in_words(self.checkpoints)} more for checkpoints while it runs" if self.checkpoints else ""
        )
        return (
            f"about {size_in_words(self.total)} on the disk in the end{there}{more}; `prune-transfer runs remove` frees"
            " what no study uses any more"
        )


def disk_of(stages: Sequence[Stage], estimator: Estimator) -> Disk:
    """What these stages leave, and while they run; stages whose network is not known yet count with a larger one."""
    machine, runs = estimator.machine, estimator.runs
    slots = machine.slurm.jobs if machine.executor == "slurm" else machine.n_jobs
    left = [stage for stage in stages if not stage.run(runs).done]
    there = sum(_size(stage.run(runs).path) for stage in stages if stage.run(runs).done)
    stored = {stage.id: _params(stage, estimator) for stage in left if stage.kind != "evaluate"}
    weights = sum(_weights(stage, stored[stage.id]) for stage in left if stage.id in stored)
    found = sum(_evaluation(stage, runs) for stage in left if stage.kind == "evaluate")
    # only as many trainings as there are slots have checkpoints at a time: at most the largest
    trained = sorted(stored[stage.id] for stage in left if stage.kind.startswith("train_"))
    checkpoints = _CHECKPOINTS * _IN_CHECKPOINT * sum(trained[-slots:])
    return Disk(there + weights + found, there, checkpoints)


def _params(stage: Stage, estimator: Estimator) -> int:
    """Weights in the stage's file, where those that masks remove are zeros."""
    network = estimator.network(stage)
    gone = [] if network is None or network.masks is None else network.masks.values()
    return estimator.estimate(stage).params + sum(int((~mask).sum()) for mask in gone)


def _weights(stage: Stage, params: int) -> int:
    """Bytes of a network, its masks and its snapshots."""
    snapshots = 0
    if stage.kind == "train_classifier":
        settings = stage.read(TrainClassifier)
        snapshots = len(settings.snapshot_epochs) + (settings.snapshot_at is not None)
    return params * (_WEIGHT * (1 + snapshots) + _MASK * _masked(stage.with_ancestors()))


def _masked(stages: Iterable[Stage]) -> bool:
    """Does one of these remove single weights?"""
    cuts = [stage.read(Cut) for stage in stages if stage.kind in ("prune", "prune_detector")]
    return any(get_method(cut.method).unstructured(cut.method_options()) for cut in cuts if cut.structural is None)


def _evaluation(stage: Stage, runs: Path) -> int:
    """Bytes of the detections of all images, at most so many an image, and of both pictures of each scene."""
    settings = stage.read(Evaluate)
    images = open_detection(settings.data, settings.split, runs / "data").split.images
    scenes = images[: settings.scenes]
    return _FOUND * _MOST_FOUND * len(images) + sum(2 * _PIXEL * image.width * image.height for image in scenes)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
