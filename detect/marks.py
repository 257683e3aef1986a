"""Boxes drawn on a picture: what is found, what is not, and what is found where nothing is. Without Detectron2."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from detect.data.images import UNKNOWN, ImageRecord
from detect.data.picture import read_picture
from detect.data.records import Detection, Split

Corners = tuple[float, float, float, float]  # left, top, right, bottom
# Small pictures are drawn larger, at most three times and up to this longer side in pixels, so that text fits
_UPSCALE = 3
_LARGE = 960
_TINT = 0.4  # share of its colour in what a mask covers
_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#808000",
    "#e600ac",
    "#000075",
)

Line = Literal["solid", "dashed", "dotted"]
_STROKES: dict[Line, tuple[int, int]] = {"dashed": (8, 5), "dotted": (2, 4)}  # pixels drawn, pixels left out
MIN_SCORE, MIN_IOU = 0.5, 0.5  # of a detection that is drawn, and of one that is right


@dataclass(frozen=True)
class Drawn:
    """A box with its label and what is written after the class name; `mask` of the image's size (H, W)."""

    corners: Corners
    label: int
    suffix: str = ""
    mask: NDArray[np.generic] | None = None
    line: Line = "solid"
    ignored: bool = False  # a crowd, or too difficult to count: neither found nor missed


def true_boxes(image: ImageRecord) -> list[Drawn]:
    """What is annotated, of the classes that the data set has."""
    return [
        Drawn(_corners(box.xywh), box.label, ignored=box.crowd or box.difficult)
        for box in image.boxes
        if box.label != UNKNOWN
    ]


def found_boxes(detections: Iterable[Detection], split: Split, *, masks: bool = True) -> list[Drawn]:
    """Detections in COCO's result format, with their scores, and with `masks` where they have some."""
    return [
        Drawn(
            _corners(one["bbox"]),
            split.category_ids.index(one["category_id"]),
            f" {one['score']:.2f}",
            rle.decode(one["segmentation"]) if masks and "segmentation" in one else None,
        )
        for one in detections
    ]


def judged(found: Sequence[Drawn], truth: Sequence[Drawn]) -> list[Drawn]:
    """The detections, best first, dashed where they find nothing, and dotted the boxes that none of them found.

    As COCO's evaluator matches: each takes the free box of its class with the largest IoU, of MIN_IOU or more.
    """
    free, drawn = list(truth), []
    for one in found:
        mine = [box for box in free if box.label == one.label]
        best = max(mine, key=lambda box: _iou(box.corners, one.corners), default=None)
        if best is not None and _iou(best.corners, one.corners) >= MIN_IOU:
            drawn.append(one)
            if not best.ignored:  # any number may lie in a crowd
                free.remove(best)
        else:
            drawn.append(replace(one, line="dashed"))
    return [*drawn, *(replace(box, line="dotted") for box in free if not box.ignored)]


@dataclass(frozen=True)
class Tally:
    """Boxes that were found and missed in an image, and detections that found nothing."""

    found: int
    missed: int
    false_alarms: int

    @classmethod
    def of(cls, drawn: Iterable[Drawn], truth: Iterable[Drawn]) -> "Tally":
        """Count what `judged` gives."""
        lines = [one.line for one in drawn]
        missed = lines.count("dotted")
        return cls(sum(not box.ignored for box in truth) - missed, missed, lines.count("dashed"))

    @property
    def f1(self) -> float | None:
        """2 found / (2 found + missed + false alarms); None where there was nothing to find."""
        if not self.found + self.missed:
            return None
        return 2 * self.found / (2 * self.found + self.missed + self.false_alarms)


def _iou(a: Corners, b: Corners) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both else 0.0


def draw(file: Path, boxes: Sequence[Drawn], names: Sequence[str]) -> Image.Image:
    """The picture of a file with these boxes, a small one up to three times as large; `names` of the classes."""
    image = read_picture(file)
    for box in boxes:
        if box.mask is not None:
            tint = Image.new("RGB", image.size, _COLOURS[box.label % len(_COLOURS)])
            image.paste(Image.blend(image, tint, _TINT), mask=Image.fromarray(box.mask.astype(np.uint8) * 255))
    scale = max(1, min(_UPSCALE, _LARGE // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for box in boxes:
        colour = _COLOURS[box.label % len(_COLOURS)]
        x0, y0, x1, y1 = (scale * c for c in box.corners)
        outline(pen, (x0, y0, x1, y1), colour, box.line)
        at, text = (x0 + 2, max(y0 - 11, 0)), f"{names[box.label]}{box.suffix}"
        pen.rectangle(pen.textbbox(at, text), fill=colour)
        pen.text(at, text, fill="white")
    return image


def outline(pen: ImageDraw.ImageDraw, corners: Corners, colour: str, line: Line) -> None:
    """A rectangle two pixels wide; broken lines lie on white, so that they are seen on any picture."""
    if line == "solid":
        pen.rectangle(corners, outline=colour, width=2)
        return
    pen.rectangle(corners, outline="white", width=2)
    x0, y0, x1, y1 = corners
    on, off = _STROKES[line]
    for start in np.arange(x0, x1, on + off):
        for y in (y0, y1 - 1):
            pen.rectangle((start, y, min(start + on - 1, x1), y + 1), fill=colour)
    for start in np.arange(y0, y1, on + off):
        for x in (x0, x1 - 1):
            pen.rectangle((x, start, x + 1, min(start + on - 1, y1)), fill=colour)


def _corners(box: Sequence[float]) -> Corners:
    x, y, width, height = box
    return x, y, x + max(width, 0), y + max(height, 0)
