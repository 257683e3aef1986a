"""What would fail after hours, found before anything is trained: every network, and every detector in a trial."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from study.config.load import source_of
from study.plan.checks import check_compile, check_device, check_processes
from study.plan.estimate import Estimator
from study.plan.rehearsal import Rehearsal
from study.stages.settings import TrainDetector
from study.stages.stage import Stage
from training.device import give_back_freed_memory
from training.files import canonical
from training.strict_yaml import ConfigError

# kind of stage -> the sections of a config that it follows from
_SECTIONS = {
    "train_classifier": ("classifier",),
    "take_weights": ("classifier",),
    "prune": ("prune",),
    "prune_detector": ("prune",),
    "train_detector": ("detector",),
}


@dataclass(frozen=True)
class Foreseen:
    """How many detectors were built and tried on small images, and the seconds that all checks took."""

    detectors: int
    seconds: float

    def __str__(self) -> str:
        tried = f", detectors tried on blank images: {self.detectors}" if self.detectors else ""
        return f"checked in {self.seconds:.1f} s: every network and its cost worked out{tried}"


def foresee(stages: Sequence[Stage], estimator: Estimator, source: Path, overrides: Sequence[str] = ()) -> Foreseen:
    """Work out the network and cost of every stage that is left, and try each detector that differs by its settings.

    ConfigError with the stage's kind and one sentence for what cannot be pruned, built, counted or trained; it blames
    the last of the `overrides` of the section that the stage follows from, or the file `source`.
    """
    start = time.perf_counter()
    tried: set[str] = set()
    rehearsal = Rehearsal(estimator)
    unfinished = [stage for stage in stages if not stage.run(estimator.runs).done]
    for check, *keys in (
        (check_device, "machine.device", "machine.precision"),
        (check_compile, "machine.compile"),
        (partial(check_processes, unfinished), "machine.gpus_per_stage"),
    ):
        try:
            check(estimator.machine)
        except ValueError as error:
            raise ConfigError(f"{source_of(source, overrides, *keys)}: {error}") from error
    # From cheap to dear, so that a mistake is told within seconds: the shape, the pruning on untrained weights, one
    # trial of each detector, and the cost, which traces it.
    looked_at: set[str] = set()
    for stage in stages:
        first = stage.hash not in looked_at  # of another seed there is nothing new to make, nor to free
        looked_at.add(stage.hash)
        try:
            estimator.network(stage)
            rehearsal.network(stage)
            if not stage.run(estimator.runs).done:
                _try_once(stage, estimator, tried)
                estimator.check(stage)
        except ValueError as error:
            blamed = source_of(source, overrides, *_SECTIONS.get(stage.kind, ()))
            raise ConfigError(f"{blamed}: {stage.kind}: {error}") from error
        if first:
            give_back_freed_memory()
    return Foreseen(len(tried), time.perf_counter() - start)


def _try_once(stage: Stage, estimator: Estimator, tried: set[str]) -> None:
    if stage.kind != "train_detector":
        return
    # what decides whether a detector can be built and run; seeds, lengths and the channels that were kept do not
    key = canonical({name: stage.settings[name] for name in ("data", "model")} | {"arch": estimator.arch(stage)})
    if key in tried:
        return
    from detect.data.loader import mean_image_size, train_loader  # Detectron2, which classification works without
    from detect.trial import try_detector

    tried.add(key)
    give_back_freed_memory()  # of the prunings before; a trial takes the most
    detector, cfg, dataset = estimator.build(stage)
    divisor = max(shape.stride for shape in detector.backbone.bottom_up.output_shape().values())
    size, train = mean_image_size(dataset, cfg), stage.read(TrainDetector).train
    try_detector(detector, cfg, image_size=size, batch_size=train.batch_size, divisor=divisor)
    train_loader(dataset, cfg, batch_size=train.batch_size, seed=0, group_by_aspect=train.group_by_aspect)
