"""The classification data of a study's stages: opened, and kept for the next stage."""

import json
from functools import lru_cache
from pathlib import Path

from classify.data import DataInfo, Splits, known_info, open_splits
from pruning.errors import Refusal
from study.config.sections import Machine
from study.stages.settings import Data
from study.stages.stage import Stage
from training.files import canonical
from training.remembered import FOLDER


def with_paths(data: Data) -> Data:
    """A classification data set's settings with the options that only say where it is."""
    places = {key: value for key, value in data.get("paths", {}).items() if key != "why"}
    return {**data, "options": {**data["options"], **places}}


def dataset_of(stage: Stage) -> Data | None:
    """The classification data set of this stage's network, or of the nearest before that names one; None without."""
    naming = (s for s in reversed(stage.with_ancestors()) if not {"arch", "dataset"}.isdisjoint(s.settings))
    nearest = next(naming, None)  # weights taken alone name an architecture and no data
    return None if nearest is None else nearest.settings.get("dataset")


def open_classification(data: Data, machine: Machine, runs: Path | None = None) -> Splits:
    """All splits of a data set as `Contents` gives it; kept for the next stage. ValueError if it is not there.

    `runs`: below it is remembered which files were checked, so that a start after the first only reads what changed.
    """
    if data.get("content", "") is None:
        raise Refusal(data["paths"]["why"])
    return _load(canonical(with_paths(data)), machine.data_root, machine.workers, runs and runs / FOLDER)


def classification_info(data: Data, machine: Machine, runs: Path) -> DataInfo:
    """The facts of a data set; its files are opened only where nothing else can tell. `runs`: as above."""
    known = known_info(data["name"], data["options"])
    if known is not None:
        return known
    train = open_classification(data, machine, runs).train
    return DataInfo(len(train.classes), len(train), train.shape)


@lru_cache(maxsize=2)
def _load(text: str, root: Path, workers: int, memory: Path | None) -> Splits:
    data = json.loads(text)
    return open_splits(data["name"], root=root, seed=data["seed"], workers=workers, memory=memory, **data["options"])
