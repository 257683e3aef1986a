"""What is refused before any stage runs."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryFile

import torch

from detect.data.open import image_memory, open_detection, open_for
from pruning.errors import Refusal
from study.config.sections import Machine
from study.stages.settings import Evaluate, TrainClassifier, TrainDetector
from study.stages.stage import Stage, device_of
from training.compiled import check_compiler
from training.device import Precision, settle, usable_cores
from training.files import canonical


def check_writable(runs: Path) -> None:
    """ValueError if run directories cannot be made there."""
    # tried, not asked: a file system that is mounted read-only shows in no permission
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise Refusal(f"{runs}: cannot write run directories there: {error.strerror or error}") from error


def check_device(machine: Machine, key: str = "machine.device") -> None:
    """ValueError for a device that there is not here, where stages run, or a precision that it has not.

    "auto" is not measured here. `key`: what says the device.
    """
    kinds = f"{key}: {machine.device!r} is no device; take auto, cpu, cuda, or one GPU, such as cuda:1"
    if machine.device != "auto":
        try:
            kind = torch.device(machine.device).type
        except RuntimeError as error:
            raise Refusal(kinds) from error
        if kind == "cuda" and machine.executor == "local" and not torch.cuda.is_available():
            raise Refusal(f"{key}: {machine.device!r}: PyTorch finds no GPU here; take auto or cpu")
    if machine.precision != "auto":
        settle_on(machine.precision, device_type(machine))


def check_compile(machine: Machine) -> None:
    """ValueError where networks are to be compiled and cannot be; that of a cluster is seen in its jobs."""
    if machine.compile and machine.gpus_per_stage > 1:
        raise Refusal(
            "machine.compile: BatchNorms over several processes are not compiled; set it to false, or"
            " machine.gpus_per_stage to 1"
        )
    if machine.compile and machine.executor == "local":
        check_compiler(device_type(machine))


def check_processes(stages: Sequence[Stage], machine: Machine) -> None:
    """ValueError where `machine.gpus_per_stage` processes are not there for a stage, or cannot share its batches."""
    count = machine.gpus_per_stage
    key = f"machine.gpus_per_stage: {count}"
    if count == 1:
        return
    if machine.device not in ("auto", "cpu", "cuda"):
        raise Refusal(f"{key}: machine.device: {machine.device} is one GPU; take auto")
    if machine.executor == "local":
        on_gpus = device_type(machine) == "cuda"
        there = torch.cuda.device_count() if on_gpus else usable_cores()
        if count > there:
            raise Refusal(f"{key}: this machine has {there} {'GPUs' if on_gpus else 'CPU cores'}")
    for stage in stages:
        if stage.kind == "train_detector":
            settings = stage.read(TrainDetector)
            batch = settings.train.batch_size
            # by this key of Detectron2's the batch grows with the processes
            if batch % count and not settings.model.detectron2().get("SOLVER.REFERENCE_WORLD_SIZE"):
                raise Refusal(f"{key}: a detector's batch_size of {batch} is no multiple of it")
        if stage.kind == "train_classifier" and stage.read(TrainClassifier).train.batch_size < count:
            batch = stage.read(TrainClassifier).train.batch_size
            raise Refusal(f"{key}: a classifier's batch_size of {batch} has not an image for each")


def settle_on(precision: str, device: str) -> Precision:
    """As `training.device.settle`; the ValueError names the key."""
    try:
        return settle(precision, device)
    except ValueError as error:
        raise Refusal(f"machine.{error}") from error


def device_type(machine: Machine) -> str:
    """The device type of the machine that stages run on, which for Slurm is not this one."""
    if machine.executor == "slurm" and machine.device == "auto":
        return "cuda" if machine.slurm.gpus else "cpu"
    return device_of(machine).partition(":")[0]


def check_detection_data(stages: Sequence[Stage], runs: Path) -> None:
    """Read every detection data set that a stage still needs, each image once, before anything is trained."""
    # Most stages share one data set, which may be 100,000 images: each split is read once for all of them, and not at
    # all for stages that are done. A mapping cannot be a key, so its JSON is.
    needed: dict[str, set[str]] = {}  # splits by data set
    for stage in stages:
        if stage.kind in ("train_detector", "evaluate") and not stage.run(runs).done:
            needed.setdefault(canonical(dict(stage.settings["data"])), set()).update(_splits_of(stage))
    for data, splits in needed.items():
        _check_splits(json.loads(data), splits, runs)


def _splits_of(stage: Stage) -> tuple[str, ...]:
    """The splits that a training or an evaluation of a detector reads."""
    if stage.kind == "evaluate":
        return (stage.settings["split"],)
    return ("train", "val") if stage.settings.get("train", {}).get("validate_every") else ("train",)


def _check_splits(data: dict[str, object], splits: set[str], runs: Path) -> None:
    from detect.data import check_apart, check_classes, check_dataset  # Detectron2, which classification works without

    # the training split first: classes and images of the others are compared with it
    in_order, root = [split for split in ("train", "val", "test") if split in splits], runs / "data"
    checked = {split: check_dataset(open_detection(data, split, root), image_memory(root)) for split in in_order}
    for first, second in combinations(in_order, 2):
        if first == "train":
            check_classes(checked[first], checked[second])
        if not data.get("allow_shared"):
            check_apart(checked[first], checked[second])


def check_scored(stage: Stage, runs: Path) -> list[str]:
    """Read the images that a detector is scored on and was not trained beside; what could not be checked, in sentences.

    ValueError if they are not sound, or among those that it was trained on.
    """
    from detect.data import check_apart, check_dataset  # Detectron2, which classification works without
    from detect.data.check import check_split

    settings = stage.read(Evaluate)
    assert settings.classes is not None
    root, untold = runs / "data", list[str]()
    test = check_dataset(open_for(settings.classes, settings.data, root), image_memory(root))
    for trained in stage.with_ancestors():
        if trained.kind != "train_detector" or settings.data.get("allow_shared"):
            continue
        try:
            data = trained.read(TrainDetector).data
            train = check_split(open_detection(data, "train", root).split, image_memory(root))
        except (Refusal, OSError) as error:
            untold.append(f"whether the detector was trained on images of {test.split.source} is not known: {error}")
        else:
            check_apart(train, test)
    return untold
