"""A detection data set by its settings: opened, and identified."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from detect.data.classes import MatchedDataset
from detect.data.coco import CocoDataset
from detect.data.records import DetectionDataset
from detect.data.voc import JoinedDataset, VocDataset, voc_classes
from detect.data.voc_layout import Draw, VocSet
from detect.data.whole import WholeImages
from detect.scenes import write_scenes
from detect.settings import CocoFiles, DetectorData, VocData, VocPart
from pruning.errors import Refusal
from training.files import canonical, files_digest


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
        _check_coco(part, f"detector.dataset.coco.{split}")
        files[split] = {"sha256": files_digest((part.annotations,)), "paths": part.model_dump(mode="json")}
    return {"coco": files, **allowed}


def open_detection(data: Mapping[str, Any], split: str, root: Path) -> DetectionDataset:
    """The `train` or `test` split on disk; generated scenes are written below `root` once."""
    # the images' sums are found with it, and say nothing about how it is opened
    return _open_detection(canonical({k: v for k, v in data.items() if k != "images"}), split, root)


@lru_cache(maxsize=4)
def _open_detection(text: str, split: str, root: Path) -> DetectionDataset:
    """Kept, as a data set in memory serves several stages; `text` changes with the annotations' contents."""
    data = json.loads(text)
    if "digits" not in data:
        return MatchedDataset(_side(text, "train"), _side(text, "test"), "train" if split == "train" else "test")
    options: dict[str, Any] = dict(data["digits"])
    counts = {name: options.pop(name) for name in ("train", "val", "test")}
    ranges = {name: tuple(options.pop(name)) for name in ("digits_per_scene", "digit_size")}
    scenes = write_scenes(root, images=counts, **{**ranges, **options})[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


@lru_cache(maxsize=4)
def _side(text: str, split: str) -> DetectionDataset:
    """The files of one split alone; kept, as each side is matched with the other."""
    data = json.loads(text)
    dataset: DetectionDataset
    if "coco" in data:
        part = data["coco"][split]["paths"]
        dataset = CocoDataset(Path(part["annotations"]), Path(part["images"]))
    else:
        voc = data["voc"]
        places = [part["paths"] for part in (voc[split], *(voc.get("also", ()) if split == "train" else ()))]
        parts = [_voc_dataset(paths, voc) for paths in places]
        dataset = JoinedDataset(tuple(parts)) if len(parts) > 1 else parts[0]
    return WholeImages(dataset) if data.get("skip_broken") else dataset


def _voc_dataset(paths: Mapping[str, Any], voc: Mapping[str, Any]) -> VocDataset:
    folders = {name: Path(paths[name]) for name in ("annotations", "images") if name in paths}
    return VocDataset(
        Path(paths["root"]),
        paths["image_set"],
        tuple(voc["classes"]),
        voc["year"],
        **folders,
        draw=Draw(**paths["draw"]) if "draw" in paths else None,
        declared=voc.get("paths", {}).get("declared", True),  # runs that are older do not say
    )


def _check_coco(part: CocoFiles, key: str) -> None:
    for name, place, there in (
        ("annotations", part.annotations, part.annotations.is_file()),
        ("images", part.images, part.images.is_dir()),
    ):
        if not there:
            raise Refusal(
                f"{key}.{name}: {place} is not there; a split in COCO's format is a JSON file and the folder of its"
                " images, which nothing here downloads"
            )


def _check_voc(part: VocPart, key: str) -> None:
    if not part.folder().is_dir():
        where = (
            "" if part.root else f"; without `root`, VOC{part.year} is looked for in $DETECTRON2_DATASETS or datasets/"
        )
        raise Refusal(
            f"{key}.root: {part.folder()} is not there; a data set in VOC's layout is a folder with Annotations/,"
            f" JPEGImages/ and ImageSets/Main/, which nothing here downloads{where}"
        )


def annotations_now(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data`, as `detection_data` gives it, with the sums that its annotation files have now."""

    def again(value: Any) -> Any:
        if isinstance(value, list):
            return [again(part) for part in value]
        if not isinstance(value, Mapping):
            return value
        if "sha256" not in value:
            return {key: again(part) for key, part in value.items()}
        paths = value["paths"]
        files = _voc_set(paths).find().needs() if "image_set" in paths else (Path(paths["annotations"]),)
        return {**value, "sha256": files_digest(tuple(files))}

    found: dict[str, Any] = again(data)
    return found


def _voc_set(paths: Mapping[str, Any]) -> VocSet:
    """The image set that a stage's settings name."""
    folders = {name: Path(paths[name]) for name in ("annotations", "images") if name in paths}
    draw = Draw(**paths["draw"]) if "draw" in paths else None
    return VocSet(Path(paths["root"]), paths["image_set"], **folders, draw=draw)


def _voc_data(voc: VocData) -> dict[str, Any]:
    for key, part in (("voc", voc), *((f"voc.also.{k}", part) for k, part in enumerate(voc.also))):
        _check_voc(part, f"detector.dataset.{key}")
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
    classes = voc.classes or _once_a_content(files_digest(everything), voc_classes, (train, test, *also))
    return {"classes": list(classes), "year": voc.year, **files, "paths": {"declared": voc.classes is not None}}


def _voc_files(files: VocSet) -> dict[str, Any]:
    """`paths` is what VocDataset is made of; which of the files are drawn shows in the digest."""
    more = {name: str(path) for name in ("annotations", "images") if (path := getattr(files, name)) is not None}
    draw = {} if files.draw is None else {"draw": asdict(files.draw)}
    paths = {"root": str(files.root), "image_set": files.image_set, **more, **draw}
    return {"sha256": files_digest(files.find().needs()), "paths": paths}


@lru_cache(maxsize=16)
def _once_a_content(digest: str, function: Callable[..., tuple[str, ...]], *arguments: Any) -> tuple[str, ...]:
    """`function` of files whose contents `digest` stands for."""
    return function(*arguments)
