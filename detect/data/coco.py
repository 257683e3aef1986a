"""Data sets in COCO's "instances" JSON: sparse category ids, crowd boxes, images without boxes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detect.data.problems import (
    ANNOTATION_ID_TWICE,
    FILE_TWICE,
    IMAGE_ID_TWICE,
    MALFORMED,
    STRAY,
    UNKNOWN_CLASS,
    Problem,
    box_fault,
)
from detect.data.records import UNKNOWN, Box, ImageRecord, Split


@dataclass(frozen=True)
class CocoDataset:
    """A COCO annotation file and the folder that its `file_name`s are relative to."""

    annotations: Path
    images: Path

    @cached_property
    def split(self) -> Split:
        """What the file says, read once; ValueError if it cannot be read."""
        return read_coco(self.annotations, self.images)


def read_coco(path: Path, images: Path) -> Split:
    """The split in a COCO JSON, images in order of their ids; ValueError if it is none or one of its lists is empty.

    Only `images`, `annotations` and `categories` are read; `area` and `iscrowd` may be absent.
    """
    coco = _read_json(path)
    for key in ("images", "annotations", "categories"):
        if not coco.get(key) or not isinstance(coco[key], list):
            raise ValueError(f"{path}: the list {key!r} is missing or empty")
    ids, names = _categories(path, coco["categories"])
    problems: list[Problem] = []
    listed = _images(path, coco["images"], problems)
    boxes: dict[int | str, list[Box]] = {image_id: [] for image_id in listed}
    labels = {category: k for k, category in enumerate(ids)}
    seen: set[Any] = set()
    for annotation in coco["annotations"]:
        place = f"annotation {annotation.get('id', '?')}" if isinstance(annotation, dict) else f"{annotation!r:.40}"
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if image_id is not None and image_id not in listed:
            problems.append(Problem(STRAY, f"{place}, of image {image_id}"))
            continue
        if image_id is None or not _complete(annotation):
            problems.append(Problem(MALFORMED, place))
            continue
        if "id" in annotation and annotation["id"] in seen:
            problems.append(Problem(ANNOTATION_ID_TWICE, place))
        seen.add(annotation.get("id"))
        image = listed[image_id]
        box = _box(annotation, labels, int(image["width"]), int(image["height"]))
        place = f"{place} in {image['file_name']}: bbox {annotation['bbox']}"
        if box.label == UNKNOWN:
            problems.append(Problem(UNKNOWN_CLASS, f"{place}, category {annotation['category_id']}"))
        if box.fault:
            problems.append(Problem(box.fault, f"{place}, image {image['width']} x {image['height']}"))
        boxes[image_id].append(box)
    records = tuple(
        ImageRecord(k, images / i["file_name"], int(i["height"]), int(i["width"]), tuple(boxes[k]))
        for k, i in sorted(listed.items())
    )
    return Split(path, names, ids, records, tuple(problems))


def _categories(path: Path, categories: list[Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    try:
        found = sorted((int(category["id"]), str(category["name"])) for category in categories)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a category needs an integer `id` and a `name`") from error
    ids, names = tuple(k for k, _ in found), tuple(name for _, name in found)
    for values in (ids, names):
        twice = next((v for k, v in enumerate(values) if v in values[:k]), None)
        if twice is not None:
            raise ValueError(f"{path}: category {twice!r} is there twice")
    return ids, names


def _images(path: Path, images: list[Any], problems: list[Problem]) -> dict[int | str, dict[str, Any]]:
    """The entries by their id, the first of each id; a size that is absent counts as 0."""
    listed: dict[int | str, dict[str, Any]] = {}
    names: set[str] = set()
    for entry in images:
        if not isinstance(entry, dict) or "file_name" not in entry or not isinstance(entry.get("id"), int | str):
            raise ValueError(f"{path}: an image needs an `id` and a `file_name`, not {entry!r:.80}")
        size = {key: entry.get(key) if isinstance(entry.get(key), int) else 0 for key in ("height", "width")}
        entry = {"id": entry["id"], "file_name": str(entry["file_name"]), **size}
        if entry["id"] in listed:
            problems.append(Problem(IMAGE_ID_TWICE, f"image {entry['id']}: {entry['file_name']}"))
            continue
        if entry["file_name"] in names:
            problems.append(Problem(FILE_TWICE, f"{entry['file_name']} (image {entry['id']})"))
        names.add(entry["file_name"])
        listed[entry["id"]] = entry
    if len({type(image_id) for image_id in listed}) > 1:
        raise ValueError(f"{path}: image ids are integers or texts, not both")
    return listed


def _complete(annotation: Mapping[str, Any]) -> bool:
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or "category_id" not in annotation:
        return False
    numbers = [*bbox, annotation.get("area", 0.0)]
    return all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)


def _box(annotation: Mapping[str, Any], labels: Mapping[int, int], width: int, height: int) -> Box:
    x, y, w, h = annotation["bbox"]
    return Box(
        xywh=(x, y, w, h),
        label=labels.get(annotation["category_id"], UNKNOWN),
        area=annotation.get("area", w * h),
        crowd=bool(annotation.get("iscrowd", 0)),
        fault=box_fault((x, y, x + w, y + h), width=width, height=height),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(coco, dict):
        raise ValueError(f"{path}: COCO annotations are a JSON object, this is a {type(coco).__name__}")
    return coco
