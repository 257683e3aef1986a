"""The data sets of a study: what of them enters a stage's hash, and where they are on this machine."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.data import Splits, open_splits
from study.detector_sections import DetectorData
from study.sections import Machine
from study.store import canonical

if TYPE_CHECKING:  # it imports Detectron2, and classification works without
    from detect.data import CocoDataset


def detection_data(data: DetectorData) -> dict[str, Any]:
    """What defines the detection data: the options of generated scenes, or the annotation files' contents.

    A path is where a file is, not what it is: files count by their SHA-256. ValueError if one is missing.
    """
    if data.digits is not None:
        return {"digits": data.digits.model_dump(mode="json")}
    assert data.coco is not None
    files: dict[str, dict[str, Any]] = {}
    for split, part in (("train", data.coco.train), ("test", data.coco.test)):
        try:
            digest = hashlib.sha256(part.annotations.read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(f"{part.annotations}: {error.strerror or error}") from error
        files[split] = {"sha256": digest, "paths": part.model_dump(mode="json")}
    return {"coco": files}


def open_detection(data: Mapping[str, Any], split: str, root: Path) -> "CocoDataset":
    """The `train` or `test` split on disk; generated scenes are written below `root` once."""
    from detect.data import CocoDataset
    from detect.scenes import write_scenes

    if "coco" in data:
        part = data["coco"][split]["paths"]
        return CocoDataset(Path(part["annotations"]), Path(part["images"]))
    options: dict[str, Any] = dict(data["digits"])
    counts = {name: options.pop(name) for name in ("train", "val", "test")}
    ranges = {name: tuple(options.pop(name)) for name in ("digits_per_scene", "digit_size")}
    scenes = write_scenes(root, images=counts, **{**ranges, **options})[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


def open_classification(data: Mapping[str, Any], machine: Machine) -> Splits:
    """All splits of a data set given by name, options and seed; kept for the next stage."""
    return _load(canonical(dict(data)), machine.data_root)


@lru_cache(maxsize=2)
def _load(text: str, root: Path) -> Splits:
    data = json.loads(text)
    return open_splits(data["name"], root=root, seed=data["seed"], **data["options"])
