"""The data sets of a study: what of them enters a stage's hash, and where they are on this machine."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from classify.data import load_dataset
from classify.data.images import ImageSet, channel_mean_std
from detect.data import CocoDataset
from detect.scenes import write_scenes
from study.detector_sections import DetectorData
from study.store import canonical


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


def open_detection(data: Mapping[str, Any], split: str, root: Path) -> CocoDataset:
    """The `train` or `test` split on disk; generated scenes are written below `root` once."""
    if "coco" in data:
        part = data["coco"][split]["paths"]
        return CocoDataset(Path(part["annotations"]), Path(part["images"]))
    options: dict[str, Any] = dict(data["digits"])
    counts = {name: options.pop(name) for name in ("train", "val", "test")}
    ranges = {name: tuple(options.pop(name)) for name in ("digits_per_scene", "digit_size")}
    scenes = write_scenes(root, images=counts, **{**ranges, **options})[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


@dataclass(frozen=True)
class ClassificationData:
    """The splits of a classification data set and the normalisation of its training images (RGB, 0..1)."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_classification(data: Mapping[str, Any], root: Path) -> ClassificationData:
    """All splits of a data set given by name, options and seed; kept in memory for the next stage."""
    return _load(canonical(dict(data)), root)


@lru_cache(maxsize=2)
def _load(text: str, root: Path) -> ClassificationData:
    data = json.loads(text)

    def load(split: str) -> ImageSet:
        return load_dataset(data["name"], split, root=root, seed=data["seed"], **data["options"])

    train = load("train")
    mean, std = channel_mean_std(train.images)
    return ClassificationData(train, load("val"), load("test"), mean, std)
