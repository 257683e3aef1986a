"""A detection data set by its settings: opened, and identified."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from detect.data.loader import DetectionDataset
from detect.settings import DetectorData, VocData
from study.stages.data import _check_coco, _check_voc
from training.files import canonical


def detection_data(data: DetectorData) -> dict[str, Any]:
    """What defines the detection data: the options of generated scenes, or the annotation files' contents.

    A path is where a file is, not what it is: files count by their SHA-256. ValueError if a list of images is missing.
    """
    allowed = {"allow_shared": True} if data.allow_shared else {}  # results without it keep their hashes
    if data.digits is not None:
        return {"digits": data.digits.model_dump(mode="json"), **allowed}
    if data.voc is not None:
        return {"voc": _voc_data(data.voc), **allowed}
    assert data.coco is not None
    files: dict[str, dict[str, Any]] = {}
    for split, part in (("train", data.coco.train), ("test", data.coco.test)):
        _check_coco(part, f"detector.dataset.coco.{split}")
        files[split] = {"sha256": _digest((part.annotations,)), "paths": part.model_dump(mode="json")}
    return {"coco": files, **allowed}


def open_detection(data: Mapping[str, Any], split: str, root: Path) -> DetectionDataset:
    """The `train` or `test` split on disk; generated scenes are written below `root` once."""
    # the images' sums are found with it, and say nothing about how it is opened
    return _open_detection(canonical({k: v for k, v in data.items() if k != "images"}), split, root)


@lru_cache(maxsize=4)
def _open_detection(text: str, split: str, root: Path) -> DetectionDataset:
    """Kept, as a data set in memory serves several stages; `text` changes with the annotations' contents."""
    from detect.data import CocoDataset, JoinedDataset, VocDataset
    from detect.scenes import write_scenes

    data = json.loads(text)
    if "coco" in data:
        part = data["coco"][split]["paths"]
        return CocoDataset(Path(part["annotations"]), Path(part["images"]))
    if "voc" in data:
        voc = data["voc"]
        places = [part["paths"] for part in (voc[split], *(voc.get("also", ()) if split == "train" else ()))]
        parts = [VocDataset(Path(p["root"]), p["image_set"], tuple(voc["classes"]), voc["year"]) for p in places]
        return JoinedDataset(tuple(parts)) if len(parts) > 1 else parts[0]
    options: dict[str, Any] = dict(data["digits"])
    counts = {name: options.pop(name) for name in ("train", "val", "test")}
    ranges = {name: tuple(options.pop(name)) for name in ("digits_per_scene", "digit_size")}
    scenes = write_scenes(root, images=counts, **{**ranges, **options})[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


def _voc_data(voc: VocData) -> dict[str, Any]:
    from detect.data.voc import voc_classes

    for key, part in (("voc", voc), *((f"voc.also.{k}", part) for k, part in enumerate(voc.also))):
        _check_voc(part, f"detector.dataset.{key}")
    train, test = (voc.folder(), voc.train), (voc.folder(), voc.test)
    also = [(part.folder(), part.train) for part in voc.also]
    files: dict[str, Any] = {"train": _voc_files(*train), "test": _voc_files(*test)}
    if also:  # results without it keep their hashes
        files["also"] = [_voc_files(*place) for place in also]
    places = (train, test, *also)
    everything = tuple(file for place in places for file in _voc_needs(*place))
    classes = voc.classes or _once_a_content(_digest(everything), voc_classes, places)
    return {"classes": list(classes), "year": voc.year, **files}


def _voc_files(root: Path, image_set: str) -> dict[str, Any]:
    return {"sha256": _digest(_voc_needs(root, image_set)), "paths": {"root": str(root), "image_set": image_set}}


def _voc_needs(root: Path, image_set: str) -> tuple[Path, ...]:
    """The list of an image set and the annotations that it needs."""
    from detect.data.voc import annotation_file, list_file, listed_ids

    return (list_file(root, image_set), *(annotation_file(root, i) for i in listed_ids(root, image_set)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; ValueError if it cannot be read."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    return _digest((path,))


def _digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over the contents; read again only when a file's time or size has changed. Absent files count as such."""
    stamps = []
    for file in files:
        there = file.stat() if file.is_file() else None
        stamps.append((str(file), (there.st_mtime_ns, there.st_size) if there else None))
    return _digest_of(tuple(stamps))


@lru_cache(maxsize=16)
def _digest_of(stamps: tuple[tuple[str, tuple[int, int] | None], ...]) -> str:
    if len(stamps) == 1:
        return hashlib.sha256(Path(stamps[0][0]).read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for name, there in stamps:
        content = hashlib.sha256(Path(name).read_bytes()).hexdigest() if there else "absent"
        digest.update(f"{Path(name).name} {content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=16)
def _once_a_content(digest: str, function: Callable[..., tuple[str, ...]], *arguments: Any) -> tuple[str, ...]:
    """`function` of files whose contents `digest` stands for."""
    return function(*arguments)
