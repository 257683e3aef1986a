"""Data sets in COCO's "instances" JSON: sparse category ids, crowd boxes, images without boxes."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.coco_fields import BadField, as_area, as_crowd, as_id, as_size, as_text, as_xywh
from detect.data.images import BOX, IMAGE, UNKNOWN, Box, ImageRecord, Images, Table
from detect.data.kept import Kept, kept
from detect.data.picture import size_of
from detect.data.problems import (
    ANNOTATION_ID_TWICE,
    BAD_AREA,
    FILE_TWICE,
    FROM_POLYGON,
    IMAGE_ID_TWICE,
    KINDS,
    MALFORMED,
    NO_SIZE,
    STRAY,
    UNKNOWN_CLASS,
    Problem,
    box_fault,
)
from detect.data.records import Split
from detect.data.suspicions import suspected
from detect.uncollected import uncollected
from pruning.errors import Refusal
from training.files import files_digest

_FORMAT = 1  # raise it whenever the same file begins to give other images, boxes or problems


@dataclass(frozen=True)
class CocoDataset:
    """A COCO annotation file and the folder that its `file_name`s are relative to.

    `kept`: a folder in which other processes find what one has read; None: each reads the file.
    """

    annotations: Path
    images: Path
    kept: Path | None = None

    @cached_property
    def split(self) -> Split:
        """What the file says, read once; ValueError if it cannot be read."""
        if self.kept is None:
            return read_coco(self.annotations, self.images)
        return _kept_split(self.annotations, self.images, self.kept)


@dataclass
class _Image:
    """`id`: as the file has it; `name`: its `file_name`."""

    id: int | str
    name: str
    width: int
    height: int
    boxes: list[Box] = field(default_factory=list)


def read_coco(path: Path, images: Path) -> Split:
    """The split in a COCO JSON, images in order of their ids; ValueError if it is none or one of its lists is empty.

    Only `images`, `annotations` and `categories` are read; `area` and `iscrowd` may be absent, so may sizes (they are
    the image files' then) and `bbox` where `segmentation` has polygons. All categories are classes, with boxes or not.
    """
    with uncollected():  # a quarter of the time
        return _read(path, images)


def _read(path: Path, images: Path) -> Split:
    coco = read_json(path, _without_outline)
    for key in ("images", "annotations", "categories"):
        if not coco.get(key):
            raise Refusal(f"{path}: the list {key!r} is missing or empty")
        if not isinstance(coco[key], list):
            raise Refusal(f"{path}: {key!r} is of type {type(coco[key]).__name__}, a list is expected")
    ids, names, notes = _categories(path, coco["categories"], _referred(coco["annotations"]))
    problems: list[Problem] = []
    listed = _images(path, images, coco["images"], problems)
    labels: dict[int | str, int] = {category: k for k, category in enumerate(ids)}
    seen: set[int | str] = set()
    for number, annotation in enumerate(coco["annotations"]):
        try:
            problems += _place(annotation, listed, labels, seen, number)
        except BadField as error:
            place = f"{_named(annotation)}: " if isinstance(annotation, dict) else ""
            problems.append(Problem(MALFORMED, f"{place}{error}"))
    del coco
    records = (
        ImageRecord(image.id, Path(image.name), image.height, image.width, image.boxes)
        for _, image in sorted(listed.items())
    )
    found = Images.all_of(Table.of(records), images)
    return suspected(Split(path, names, ids, found, tuple(problems), notes=notes))


def kept_key(path: Path, what: str) -> list[object]:
    """Of `what` is kept of a COCO file: it changes with the file's content and with how it is read."""
    return [_FORMAT, what, list(KINDS), repr((IMAGE, BOX)), files_digest((path,))]


def _kept_split(path: Path, images: Path, folder: Path) -> Split:
    """As `read_coco`, from what is kept in `folder`."""
    key = kept_key(path, "split")

    def make() -> tuple[Kept, bool]:
        split = read_coco(path, images)
        table = split.images.table
        about = {
            "classes": split.classes,
            "category_ids": split.category_ids,
            "notes": [note.removeprefix(f"{path}: ") for note in split.notes],
            "problems": [(problem.kind, problem.where) for problem in split.problems],
        }
        arrays = {"images": table.images, "boxes": table.boxes, "texts": table.texts}
        lasts = not _of_pictures(split) and kept_key(path, "split") == key
        return Kept(about, {name: array.view(np.uint8) for name, array in arrays.items()}), lasts

    found = kept(folder, key, make)
    split = Split(
        source=path,
        classes=tuple(found.about["classes"]),
        category_ids=tuple(found.about["category_ids"]),
        images=Images.all_of(
            Table(found.arrays["images"].view(IMAGE), found.arrays["boxes"].view(BOX), found.arrays["texts"]), images
        ),
        problems=tuple(Problem(kind, where) for kind, where in found.about["problems"]),
        notes=tuple(f"{path}: {note}" for note in found.about["notes"]),
    )
    return split if _of_pictures(split) else replace(split, kept=folder)


def _of_pictures(split: Split) -> bool:
    """Does it depend on the image files, as the annotation file lacks a size?"""
    return not (split.images.sizes > 0).all() or any(problem.kind == NO_SIZE for problem in split.problems)


def _place(
    annotation: object,
    listed: Mapping[int | str, _Image],
    labels: Mapping[int | str, int],
    seen: set[int | str],
    number: int,
) -> list[Problem]:
    """Put the box of the annotation `number` into its image; what is wrong with it. BadField if it cannot be read."""
    if not isinstance(annotation, dict):
        raise BadField(f"an annotation is an object, not {annotation!r:.60}")
    image_id, category = as_id(annotation, "image_id"), as_id(annotation, "category_id")
    if image_id not in listed:
        return [Problem(STRAY, f"{_named(annotation)}, of image {annotation['image_id']}")]
    image = listed[image_id]
    found: list[Problem] = []
    xywh, from_polygon = as_xywh(annotation)
    area, from_box = as_area(annotation, xywh)
    crowd = as_crowd(annotation)
    if annotation.get("id") is not None:
        own = as_id(annotation, "id")
        if own in seen:
            found.append(Problem(ANNOTATION_ID_TWICE, _named(annotation)))
        seen.add(own)
    x, y, w, h = xywh
    fault = box_fault((x, y, x + w, y + h), width=image.width, height=image.height)
    box = Box(xywh, labels.get(category, UNKNOWN), area, crowd, fault=fault, number=number)
    image.boxes.append(box)
    if box.label != UNKNOWN and not (from_polygon or from_box or fault):
        return found
    where = f"{_named(annotation)} in {image.name}: bbox {list(xywh)}"
    if box.label == UNKNOWN:
        found.append(Problem(UNKNOWN_CLASS, f"{where}, category {annotation['category_id']}"))
    if from_polygon:
        found.append(Problem(FROM_POLYGON, where))
    if from_box:
        found.append(Problem(BAD_AREA, f"{where}, area {annotation['area']}"))
    if fault:
        found.append(Problem(fault, f"{where}, image {image.width} x {image.height}"))
    return found


def _named(annotation: Mapping[str, object]) -> str:
    return f"annotation {annotation.get('id', '?')!r:.40}"


def _referred(annotations: Iterable[object]) -> set[int | str]:
    """The categories that annotations name."""
    found = set()
    for annotation in annotations:
        try:
            found.add(as_id(annotation, "category_id") if isinstance(annotation, dict) else "")
        except BadField:
            continue  # said where the annotation is read
    return found


def _categories(
    path: Path, categories: list[object], referred: set[int | str]
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """Ids and names, by id, and notes; a category that repeats the name of another is left out if it has no box."""
    found: dict[int, str] = {}
    for category in categories:
        try:
            if not isinstance(category, dict):
                raise BadField("it is no object")
            number, name = as_id(category, "id"), as_text(category, "name")
            name.encode()  # half a pair of UTF-16 is no text: it can be neither written nor scored
        except (BadField, UnicodeEncodeError) as error:
            raise Refusal(f"{path}: a category needs an integer `id` and a `name`: {error}") from error
        if not isinstance(number, int):
            raise Refusal(f"{path}: a category needs an integer `id` and a `name`: id {number!r:.60}")
        if number in found:
            raise Refusal(f"{path}: category {number!r} is there twice")
        found[number] = name
    notes = []
    for number in sorted(found):
        alike = [other for other, name in found.items() if name == found[number]]
        if len(alike) > 1:
            used = [other for other in alike if other in referred]
            if len(used) != 1:
                raise Refusal(f"{path}: category {found[number]!r} is there twice")
            if number not in referred:
                notes.append(
                    f"{path}: category {number} repeats the name {found.pop(number)!r} and has no box: left out"
                )
    return tuple(sorted(found)), tuple(found[number] for number in sorted(found)), tuple(notes)


def _images(path: Path, folder: Path, images: list[object], problems: list[Problem]) -> dict[int | str, _Image]:
    """The entries by their id, the first of each id; ValueError for one that cannot be read."""
    listed: dict[int | str, _Image] = {}
    names: set[str] = set()
    for entry in images:
        if not isinstance(entry, dict):
            raise Refusal(f"{path}: an image needs an `id` and a `file_name`, not {entry!r:.80}")
        try:
            key, name = as_id(entry, "id"), as_text(entry, "file_name")
            width, height = as_size(entry, "width"), as_size(entry, "height")
        except BadField as error:
            raise Refusal(f"{path}: an image needs an `id` and a `file_name`: {error} in {entry!r:.80}") from error
        if key in listed:
            problems.append(Problem(IMAGE_ID_TWICE, f"image {entry['id']}: {name}"))
            continue
        if name in names:
            problems.append(Problem(FILE_TWICE, f"{name} (image {entry['id']})"))
        names.add(name)
        if not (width and height):
            own = size_of(folder / name)
            width, height = width or own[0], height or own[1]
            if own[0]:  # else the file is no image, which the check of the images says
                problems.append(Problem(NO_SIZE, f"{name} (image {entry['id']}): {width} x {height}"))
        listed[key] = _Image(entry["id"], name, width, height)
    if len({type(key) for key in listed}) > 1:
        raise Refusal(f"{path}: image ids are integers or texts, not both")
    return listed


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation without what is most of the file; it stays where it is what the box is taken from."""
    if entry.get("bbox"):
        entry.pop("segmentation", None)
    return entry


def read_json(path: Path, each: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> dict[str, Any]:
    """The object in a COCO JSON; ValueError if there is none. Every object in it is what `each` makes of it."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=each)
    except OSError as error:
        raise Refusal(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: not valid JSON: {error}") from error
    if not isinstance(coco, dict):
        raise Refusal(f"{path}: COCO annotations are a JSON object, this is a {type(coco).__name__}")
    return coco
