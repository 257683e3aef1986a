"""What is refused before any stage runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from detect.data.open import open_detection
from study.config.load import ConfigError
from study.plan.estimate import Budget
from study.rehearsal import Rehearsal
from study.stages.stage import Stage
from training.files import canonical


def check_writable(runs: Path) -> None:
    """ValueError if run directories cannot be made there."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise ValueError(f"{runs}: cannot write run directories there: {error.strerror or error}") from error


def check_prunable(stages: Sequence[Stage], budget: Budget, source: Path) -> None:
    """Work out every network before any is trained, so that a ratio that empties a layer is refused at once."""
    rehearsal = Rehearsal(budget)
    for stage in stages:
        try:
            budget.network(stage)
            rehearsal.network(stage)
        except ValueError as error:
            raise ConfigError(f"{source}: {stage.kind}: {error}") from error


def check_detection_data(stages: Sequence[Stage], runs: Path) -> None:
    """Read every detection data set that a stage still needs, each image once, before anything is trained."""
    needed: dict[str, set[str]] = {}  # splits by data set
    for stage in stages:
        if stage.kind in ("train_detector", "evaluate") and not stage.run(runs).done:
            split = "train" if stage.kind == "train_detector" else stage.settings["split"]
            needed.setdefault(canonical(dict(stage.settings["data"])), set()).add(split)
    for data, splits in needed.items():
        _check_splits(json.loads(data), splits, runs)


def _check_splits(data: dict[str, Any], splits: set[str], runs: Path) -> None:
    from detect.data import check_apart, check_dataset  # Detectron2, which classification works without

    train_first = sorted(splits, key="train".__ne__)
    checked = {split: check_dataset(open_detection(data, split, runs / "data")) for split in train_first}
    if "train" in checked and not data.get("allow_shared"):
        for split in train_first[1:]:
            check_apart(checked["train"], checked[split])
