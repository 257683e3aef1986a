"""Data sets with Pascal VOC's XML, one file an image; where the files are is in detect/data/voc_layout.py."""

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from xml.parsers import expat

from detect.data.images import UNKNOWN, Box, ImageRecord, Images
from detect.data.picture import size_of
from detect.data.problems import (
    BAD_ANNOTATION,
    FILE_TWICE,
    MALFORMED,
    NO_ANNOTATION,
    NO_SIZE,
    UNKNOWN_CLASS,
    Problem,
    box_fault,
)
from detect.data.records import Split
from detect.data.suspicions import suspected
from detect.data.voc_layout import Draw, VocSet, list_file
from pruning.errors import Refusal

__all__ = ["PIXEL", "VocDataset", "list_file", "parse_annotation", "read_voc", "voc_classes"]

PIXEL = 1.0  # VOC numbers pixels from 1 and names the first and the last: the same number twice is one pixel


@dataclass(frozen=True)
class VocDataset:
    """A folder of VOC's XML and one of its image sets. `classes` None: those of the set's annotations, sorted.

    `image_set`: a name in ImageSets/Main, the path of a file with one id a line, a folder of its own, or `all`. `year`:
    whose metric is reported first, 11-point (2007) or continuous (2012). `annotations`, `images`, `draw`: see
    detect.data.voc_layout.VocSet. `declared`: are the classes given, or all that were found?
    """

    root: Path
    image_set: str
    classes: tuple[str, ...] | None = None
    year: int = 2012
    annotations: Path | None = None
    images: Path | None = None
    draw: Draw | None = None
    declared: bool = False

    @property
    def files(self) -> VocSet:
        """Where the files are."""
        return VocSet(self.root, self.image_set, self.annotations, self.images, self.draw)

    @cached_property
    def split(self) -> Split:
        """What the files say, read once; ValueError if the list cannot be read or there is not one box."""
        return read_voc(self)


@dataclass(frozen=True)
class _Object:
    """`corners`: xmin, ymin, xmax, ymax as written."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class _Annotation:
    width: int
    height: int
    objects: tuple[_Object, ...]
    malformed: tuple[str, ...]


def voc_classes(sets: tuple[VocSet, ...]) -> tuple[str, ...]:
    """All class names in the annotations of image sets, sorted; files that cannot be read have none."""
    paths = dict.fromkeys(found.annotation(i) for found in (each.find() for each in sets) for i in found.ids)
    return _classes(map(_read_or_problem, paths))


def read_voc(dataset: VocDataset) -> Split:
    """The split that an image set lists, in its order; an image's id is its name without suffix."""
    found = dataset.files.find()
    problems = [Problem(FILE_TWICE, i) for i, count in Counter(found.ids).items() if count > 1]
    read = {image_id: _read_or_problem(found.annotation(image_id)) for image_id in found.ids}
    problems += [each for each in read.values() if isinstance(each, Problem)]
    classes = dataset.classes or _classes(read.values())
    labels = {name: k for k, name in enumerate(classes)}
    files = found.image_files()
    records = []
    for image_id, annotation in read.items():
        if isinstance(annotation, Problem):
            continue
        file = files.get(image_id, found.images / f"{image_id}.jpg")
        if not (annotation.width and annotation.height):
            own = size_of(file)
            width, height = annotation.width or own[0], annotation.height or own[1]
            annotation = replace(annotation, width=width, height=height)
            if own[0]:  # else the file is no image, which the check of the images says
                problems.append(Problem(NO_SIZE, f"{image_id}.xml: {width} x {height}"))
        boxes = tuple(_box(thing, labels, annotation) for thing in annotation.objects)
        problems += _faults(f"{image_id}.xml", annotation, boxes)
        records.append(ImageRecord(image_id, file, annotation.height, annotation.width, boxes))
    if not problems and not any(record.boxes for record in records):
        raise Refusal(f"{found.source}: not one of its {len(records)} images has a box")
    ids = tuple(range(1, len(classes) + 1))
    split = Split(found.source, classes, ids, Images.of(records), tuple(problems), dataset.year, found.notes)
    return suspected(replace(split, declared=dataset.declared))


def parse_annotation(content: bytes) -> _Annotation:
    """Size and objects of a VOC annotation; ValueError if it is not XML or has a document type.

    A document type is where XML defines entities, which can expand without end or name other files; VOC has none.
    A size that is absent counts as 0. Parts of objects (VOC's heads and hands) are left out.
    """
    guard = expat.ParserCreate()  # sees what ElementTree will see, whatever the encoding, without building a tree
    guard.StartDoctypeDeclHandler = _refuse
    try:
        guard.Parse(content, True)
        tree = ET.fromstring(content)
    except (expat.ExpatError, ET.ParseError) as error:
        raise Refusal(f"not valid XML: {error}") from error
    objects, malformed = [], []
    for k, node in enumerate(tree.findall("object"), 1):
        try:
            objects.append(_object(node))
        except ValueError as error:
            malformed.append(f"object {k}: {error}")
    return _Annotation(_size(tree, "width"), _size(tree, "height"), tuple(objects), tuple(malformed))


def _refuse(name: str, *_: object) -> None:
    raise Refusal(f"it has a document type ({name}), which can define entities: refused")


def _object(node: ET.Element) -> _Object:
    texts, box = _texts(node), node.find("bndbox")
    if not texts.get("name"):
        raise Refusal("no name")
    corners = {} if box is None else _texts(box)
    edges = [corners.get(key) for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(text or "") for text in edges)
    except ValueError as error:
        raise Refusal(f"bndbox {edges} are not four numbers") from error
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise Refusal(f"bndbox {edges} are not finite")
    flags = texts.get("difficult") == "1", texts.get("truncated") == "1"
    return _Object(texts["name"], (xmin, ymin, xmax, ymax), *flags)


def _texts(node: ET.Element) -> dict[str, str]:
    """The texts of an element's children by tag: several times as fast as asking for each."""
    return {child.tag: (child.text or "").strip() for child in node}


def _size(tree: ET.Element, key: str) -> int:
    try:
        return int(float(tree.findtext(f"size/{key}") or 0))
    except (ValueError, OverflowError):
        return 0


def _box(thing: _Object, labels: dict[str, int], image: _Annotation) -> Box:
    xmin, ymin, xmax, ymax = thing.corners
    x, y = xmin - PIXEL, ymin - PIXEL  # Detectron2's reading: (1, 1, W, H) covers the whole image
    return Box(
        xywh=(x, y, xmax - x, ymax - y),
        label=labels.get(thing.name, UNKNOWN),
        area=(xmax - x) * (ymax - y),
        difficult=thing.difficult,
        truncated=thing.truncated,
        fault=box_fault((x, y, xmax, ymax), width=image.width, height=image.height, pixel=PIXEL),
    )


def _classes(read: Iterable[_Annotation | Problem]) -> tuple[str, ...]:
    return tuple(sorted({thing.name for a in read if isinstance(a, _Annotation) for thing in a.objects}))


def _faults(name: str, annotation: _Annotation, boxes: tuple[Box, ...]) -> Iterator[Problem]:
    for what in annotation.malformed:
        yield Problem(MALFORMED, f"{name}: {what}")
    for thing, box in zip(annotation.objects, boxes, strict=True):
        place = f"{name}: {thing.name} {' '.join(f'{v:g}' for v in thing.corners)}"
        if box.label == UNKNOWN:
            yield Problem(UNKNOWN_CLASS, place)
        if box.fault:
            yield Problem(box.fault, f"{place}, image {annotation.width} x {annotation.height}")


def _read_or_problem(path: Path) -> _Annotation | Problem:
    try:
        return parse_annotation(path.read_bytes())
    except FileNotFoundError:
        return Problem(NO_ANNOTATION, str(path))
    except (OSError, ValueError) as error:
        return Problem(BAD_ANNOTATION, f"{path}: {error}")


@dataclass(frozen=True)
class JoinedDataset:
    """The images of `parts`, in their order; all parts name the same classes.

    The split's source is the first part's. ValueError from it if two parts have images of the same id: a result could
    not say which it means.
    """

    parts: tuple[VocDataset, ...]

    @cached_property
    def split(self) -> Split:
        """All images and problems, read once."""
        splits = [part.split for part in self.parts]
        sources: dict[int | str, Path] = {}
        for split in splits:
            for image in split.images:
                first = sources.setdefault(image.id, split.source)
                if first is not split.source:
                    raise Refusal(f"{first} and {split.source} both have an image {image.id}: rename one of them")
        images = Images.of(image for split in splits for image in split.images)
        problems = tuple(problem for split in splits for problem in split.problems)
        notes = tuple(note for split in splits for note in split.notes)
        return replace(splits[0], images=images, problems=problems, notes=notes)
