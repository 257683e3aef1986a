"""A detection data set by its settings: opened, and identified."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from detect.data.loader import DetectionDataset
from detect.settings import DetectorData, VocData
from study.stages.data import _side
from training.files import canonical


def detection_data(data: DetectorData) -> dict[str, Any]:
    """What defines the detection data: the options of generated scenes, or the annotation files' contents.

    A path is where a file is, not what it is: files count by their SHA-256. ValueError if a list of images is missing.
    """
    # results without them keep their hashes
    allowed = {key: True for key in ("allow_shared", "skip_broken") if getattr(data, key)}
    if data.digits is not None:
        return {"digits": data.digits.model_dump(mode="json"), **allowed}
    if data.voc is not None:
        return {"voc": _voc_data(data.voc), **allowed}
    assert data.coco is not None
    files: dict[str, dict[str, Any]] = {}
    for split, part in (("train", data.coco.train), ("test", data.coco.test)):
        if not part.annotations.is_file():
            raise ValueError(f"{part.annotations}: No such file")
        files[split] = {"sha256": _digest((part.annotations,)), "paths": part.model_dump(mode="json")}
    return {"coco": files, **allowed}


def open_detection(data: Mapping[str, Any], split: str, root: Path) -> DetectionDataset:
    """The `train` or `test` split on disk; generated scenes are written below `root` once."""
    return _open_detection(canonical(data), split, root)


@lru_cache(maxsize=4)
def _open_detection(text: str, split: str, root: Path) -> DetectionDataset:
    """Kept, as a data set in memory serves several stages; `text` changes with the annotations' contents."""
    from detect.data import CocoDataset, MatchedDataset
    from detect.scenes import write_scenes

    data = json.loads(text)
    if "digits" not in data:
        return MatchedDataset(_side(text, "train"), _side(text, "test"), "train" if split == "train" else "test")
    options: dict[str, Any] = dict(data["digits"])
    counts = {name: options.pop(name) for name in ("train", "val", "test")}
    ranges = {name: tuple(options.pop(name)) for name in ("digits_per_scene", "digit_size")}
    scenes = write_scenes(root, images=counts, **{**ranges, **options})[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


def _voc_data(voc: VocData) -> dict[str, Any]:
    from detect.data.voc import voc_classes
    from detect.data.voc_layout import Draw, VocSet

    test = VocSet(voc.folder(), voc.test, voc.annotations, voc.images)
    train = replace(test, image_set=voc.train)
    if voc.split is not None:
        share, seed, of = voc.split.test, voc.split.seed, voc.split.of
        train, test = (replace(test, image_set=of, draw=Draw(share, seed, side)) for side in ("train", "test"))
    also = [VocSet(part.folder(), part.train, part.annotations, part.images) for part in voc.also]
    files: dict[str, Any] = {"train": _voc_files(train), "test": _voc_files(test)}
    if also:  # results without it keep their hashes
        files["also"] = [_voc_files(place) for place in also]
    everything = tuple(file for place in (train, test, *also) for file in place.find().needs())
    classes = voc.classes or _once_a_content(_digest(everything), voc_classes, (train, test, *also))
    return {"classes": list(classes), "year": voc.year, **files, "paths": {"declared": voc.classes is not None}}


def _voc_files(files: "VocSet") -> dict[str, Any]:
    """`paths` is what VocDataset is made of; which of the files are drawn shows in the digest."""
    more = {name: str(path) for name in ("annotations", "images") if (path := getattr(files, name)) is not None}
    draw = {} if files.draw is None else {"draw": asdict(files.draw)}
    paths = {"root": str(files.root), "image_set": files.image_set, **more, **draw}
    return {"sha256": _digest(files.find().needs()), "paths": paths}


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
