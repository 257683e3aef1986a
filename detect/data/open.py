"""A detection data set by its settings: opened, and identified."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from detect.data.classes import MatchedDataset, NamedDataset, ValidatedDataset
from detect.data.draw import Carved
from detect.data.records import DetectionDataset
from detect.data.sets import DATASETS
from detect.data.sets.dataset import DataSet
from detect.data.whole import WholeImages
from detect.settings import DetectorData
from pruning.errors import Refusal
from training.files import canonical, files_digest
from training.remembered import FOLDER


def detection_data(data: DetectorData) -> dict[str, object]:
    """What defines the detection data: the options of generated scenes, or the annotation files' contents.

    A path is where a file is, not what it is: files count by their SHA-256. ValueError if a list of images is missing.
    """
    # results without them keep their hashes
    more: dict[str, object] = {key: True for key in ("allow_shared", "skip_broken") if getattr(data, key)}
    name, options = data.given
    if data.validation is not None:
        if DATASETS[name].has_val(options):
            raise Refusal(
                f"detector.dataset.validation: {data.validation:g}: `{name}` has validation images of its own (val);"
                " leave it out"
            )
        more["validation"] = {"share": data.validation, "seed": data.validation_seed}
    return {name: DATASETS[name].identity(options), **more}


def is_generated(data: Mapping[str, object]) -> bool:
    """Do the images of `data`, as `detection_data` gives it, follow from options alone?"""
    return _given(data)[0].generated


def splits_of(data: Mapping[str, object]) -> tuple[str, ...]:
    """The splits of `data`: `val` too where it has images for validation, or keeps some for it."""
    source, identity = _given(data)
    has_val = source.generated or "val" in identity or "validation" in data
    return ("train", "val", "test") if has_val else ("train", "test")


def open_detection(data: Mapping[str, object], split: str, root: Path | None) -> DetectionDataset:
    """One of `splits_of(data)` on disk; scenes, and what takes long to read, are written below `root` once."""
    # the images' sums are found with it, and say nothing about how it is opened
    return _open_detection(canonical({k: v for k, v in data.items() if k != "images"}), split, root)


def open_for(classes: tuple[str, ...], data: Mapping[str, object], root: Path | None) -> DetectionDataset:
    """The `test` split for a detector of these classes, which was trained on other data."""
    return NamedDataset(_side(canonical({k: v for k, v in data.items() if k != "images"}), "test", root), classes)


def image_memory(root: Path | None) -> Path | None:
    """The folder below `root` that remembers which images were decoded; None: nothing does."""
    return None if root is None else root / FOLDER


@lru_cache(maxsize=4)
def _open_detection(text: str, split: str, root: Path | None) -> DetectionDataset:
    """Kept, as a data set in memory serves several stages; `text` changes with the annotations' contents."""
    data = json.loads(text)
    if is_generated(data):
        return _side(text, split, root)
    if split not in splits_of(data):
        raise Refusal(
            "there is no validation split; detector.dataset.validation says which share is kept for it, or the data"
            " set's key `val` names its images"
        )
    train, test = (_side(text, side, root) for side in ("train", "test"))
    matched = MatchedDataset(train, test, "test" if split == "test" else "train")
    if split == "test" or "val" not in splits_of(data):
        return matched
    side: Literal["train", "val"] = "val" if split == "val" else "train"
    if "validation" in data:
        return Carved(matched, **data["validation"], side=side)
    return ValidatedDataset(matched, _side(text, "val", root), side)


@lru_cache(maxsize=4)
def _side(text: str, split: str, root: Path | None) -> DetectionDataset:
    """The files of one split alone; kept, as each side is matched with the other."""
    data = json.loads(text)
    source, identity = _given(data)
    dataset = source.open(identity, split, root)
    return WholeImages(dataset, image_memory(root)) if data.get("skip_broken") else dataset


def annotations_now(data: Mapping[str, object]) -> dict[str, object]:
    """`data`, as `detection_data` gives it, with the sums that its annotation files have now."""
    files = _given(data)[0].files

    def again(value: object) -> object:
        if isinstance(value, list):
            return [again(part) for part in value]
        if not isinstance(value, Mapping):
            return value
        if files is None or "sha256" not in value:
            return {key: again(part) for key, part in value.items()}
        return {**value, "sha256": files_digest(files(value["paths"]))}

    return {key: again(part) for key, part in data.items()}


def _given(data: Mapping[str, object]) -> tuple[DataSet[Any, Any], Mapping[str, object]]:
    """The data set that `data` names, and its identity."""
    name = next(name for name in DATASETS if name in data)
    identity = data[name]
    assert isinstance(identity, Mapping)
    return DATASETS[name], identity
