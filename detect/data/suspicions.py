"""What no single box shows, but all together: numbers in another unit, or in another order, than the format has."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, compress

from detect.data.images import Box, ImageRecord
from detect.data.problems import CORNERS, MOSTLY_OVER, NORMALISED, OUTSIDE, OVER_EDGE, Problem
from detect.data.records import Split

_UNIT = (-0.1, 1.1)  # where fractions of an image are; some exporters go a little beyond it
_FEW = 2  # one box over the edge is a slip, in whatever small data set
_MANY = 8  # boxes of which it is no accident that all of them can be read as corners


def suspected(split: Split) -> Split:
    """`split` with a problem for each box that shows that coordinates are not what the format says they are."""
    normalised = _normalised(split)
    if normalised:
        return replace(split, problems=(*split.problems, *normalised))
    over = [problem for problem in split.problems if problem.kind in (OVER_EDGE, OUTSIDE)]
    boxes = int(split.images.box_counts.sum())
    most = len(over) >= _FEW and 2 * len(over) > boxes
    corners = bool(over) and boxes >= _MANY and _all_are_corners(split)
    if not most and not corners:
        return split
    rest = [problem for problem in split.problems if problem.kind not in (OVER_EDGE, OUTSIDE)]
    return replace(
        split, problems=(*rest, *(replace(problem, kind=MOSTLY_OVER if most else CORNERS) for problem in over))
    )


def _normalised(split: Split) -> list[Problem]:
    """The boxes whose numbers are all fractions, if most are such."""
    x, y, w, h = (split.images.of_box(name) for name in "xywh")
    written = (x, y, w, h) if split.voc_year is None else (x + 1, y + 1, x + w, y + h)
    fractions = (x != 0) | (y != 0) | (w != 0) | (h != 0)
    for value in written:
        fractions &= (value >= _UNIT[0]) & (value <= _UNIT[1])
    found = []
    if 2 * fractions.sum() > len(fractions):
        for image, box in compress(_boxes(split), fractions):
            numbers = _corners(box) if split.voc_year is not None else box.xywh
            found.append(Problem(NORMALISED, f"{image.file.name}: {[round(value, 4) for value in numbers]}"))
    return found


def _all_are_corners(split: Split) -> bool:
    """Could the last two numbers of every box be a corner to the right of and below the first two, in the image?"""
    return split.voc_year is None and all(
        box.xywh[0] < box.xywh[2] <= image.width + 1 and box.xywh[1] < box.xywh[3] <= image.height + 1
        for image, box in _boxes(split)
    )


def _boxes(split: Split) -> Iterator[tuple[ImageRecord, Box]]:
    return chain.from_iterable(((image, box) for box in image.boxes) for image in split.images)


def _corners(box: Box) -> tuple[float, float, float, float]:
    """As VOC writes them: of the first and of the last pixel, counted from 1."""
    x, y, w, h = box.xywh
    return x + 1, y + 1, x + w, y + h
