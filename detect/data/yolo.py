"""Data sets in YOLO's format: a text file for each image, a line for each box, in fractions of the image.

A line is `class centre_x centre_y width height`; one of the segment format, `class x1 y1 x2 y2 x3 y3 ...`, counts as
the box around its polygon. An image without a label file has no objects, as one with an empty file
(https://docs.ultralytics.com/datasets/detect/).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detect.data.images import UNKNOWN, Box, ImageRecord, Images
from detect.data.picture import size_of
from detect.data.problems import (
    BAD_ANNOTATION,
    FROM_POLYGON,
    MALFORMED,
    NO_LABELS,
    UNKNOWN_CLASS,
    Problem,
    box_fault,
)
from detect.data.records import Split
from detect.data.suspicions import suspected
from detect.data.yolo_layout import YoloSet, label_file
from pruning.errors import Refusal

_BEYOND = 0.01  # how far beyond the image a fraction may be: further out it is of something else, such as pixels
_OF_A_BOX = 5
_LEAST_OF_A_POLYGON = 7  # the class and three corners

Fractions = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class YoloDataset:
    """Images in `root`, as a detect.data.yolo_layout.YoloSet names them; `names`: of the classes by their numbers."""

    root: Path
    places: tuple[str, ...]
    names: Mapping[int, str]

    @cached_property
    def split(self) -> Split:
        """What the files say, read once; ValueError if there is not one box."""
        return read_yolo(YoloSet(self.root, self.places), self.names)


def read_yolo(files: YoloSet, names: Mapping[int, str]) -> Split:
    """The split of these files, in their order; an image's id is its path in the root."""
    labels = {number: k for k, number in enumerate(names)}
    problems: list[Problem] = []
    images = []
    for file in files.images():
        width, height = size_of(file)
        found = list(_read(label_file(file), labels, width, height))
        problems += [each for each in found if isinstance(each, Problem)]
        boxes = tuple(each for each in found if isinstance(each, Box))
        images.append(ImageRecord(files.id_of(file), file, height, width, boxes))
    source = files.root / files.places[0]
    if not any(image.boxes for image in images) and all(problem.kind == NO_LABELS for problem in problems):
        where = label_file(images[0].file)
        raise Refusal(f"{source}: not one of its {len(images)} images has a box; labels are looked for as in {where}")
    return suspected(Split(source, tuple(names.values()), tuple(names), Images.of(images), tuple(problems)))


def _read(path: Path, labels: Mapping[int, int], width: int, height: int) -> Iterator[Box | Problem]:
    """The boxes in a label file, and what is wrong with it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        yield Problem(NO_LABELS, str(path))
        return
    except (OSError, UnicodeDecodeError) as error:
        yield Problem(BAD_ANNOTATION, f"{path}: {error}")
        return
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}: {line.strip():.60}"
        values = line.split()
        if not values:
            continue
        try:
            category, corners = _parse(values)
        except ValueError as error:
            yield Problem(MALFORMED, f"{place}: {error}")
            continue
        if not (width and height):  # the file is no image, which the check of the images says
            continue
        left, top, right, bottom = (v * side for v, side in zip(corners, (width, height, width, height), strict=True))
        fault = box_fault((left, top, right, bottom), width=width, height=height)
        xywh = (left, top, right - left, bottom - top)
        if category not in labels:
            yield Problem(UNKNOWN_CLASS, f"{place} (class {category}; there are {', '.join(map(str, labels))})")
        if len(values) > _OF_A_BOX:
            yield Problem(FROM_POLYGON, place)
        if fault:
            yield Problem(fault, f"{place}, image {width} x {height}")
        yield Box(xywh, labels.get(category, UNKNOWN), xywh[2] * xywh[3], fault=fault)


def _parse(values: Sequence[str]) -> tuple[int, Fractions]:
    """The class's number and the box of a line; ValueError says what it is not."""
    polygon = len(values) >= _LEAST_OF_A_POLYGON and len(values) % 2
    if len(values) != _OF_A_BOX and not polygon:
        raise Refusal(f"{len(values)} values; a box has a class and 4 numbers, a polygon a class and 3 points or more")
    try:
        category, numbers = float(values[0]), [float(value) for value in values[1:]]
    except ValueError as error:
        raise Refusal("not all are numbers") from error
    if not category.is_integer() or category < 0:
        raise Refusal(f"{values[0]} is no number of a class")
    if not all(math.isfinite(v) and -_BEYOND <= v <= 1 + _BEYOND for v in numbers):
        raise Refusal("fractions of the image are from 0 to 1")
    if polygon:
        xs, ys = numbers[::2], numbers[1::2]
        return int(category), (min(xs), min(ys), max(xs), max(ys))
    x, y, width, height = numbers
    return int(category), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
