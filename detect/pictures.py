"""Pictures of what a detector finds, beside what there is to find."""

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from torch import nn

from detect.data import DetectionDataset
from detect.data.images import UNKNOWN
from detect.data.loader import test_loader
from detect.data.picture import read_picture
from detect.data.records import Detection, Split
from training.files import write_bytes

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
    mask: np.ndarray | None = None
    line: Line = "solid"
    ignored: bool = False  # a crowd, or too difficult to count: neither found nor missed


def draw_scenes(
    detector: nn.Module,
    cfg: CfgNode,
    *,
    dataset: DetectionDataset,
    out_dir: Path,
    count: int = 8,
    min_score: float = MIN_SCORE,
) -> list[Path]:
    """Draw the first `count` images with their boxes and with the detector's; returns the paths.

    Written as out_dir/ground_truth_<k>.png and out_dir/detections_<k>.png, small images up to three times as large.
    What a detector's masks cover is tinted. A detection that finds nothing is dashed, a box that none found is dotted
    (`judged`).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    split, paths = dataset.split, []
    loader = itertools.islice(test_loader(dataset, cfg), count)
    with inference_context(detector), torch.no_grad():
        for k, inputs in enumerate(loader):
            image = split.images[k]
            truth = [
                Drawn(_corners(box.xywh), box.label, ignored=box.crowd or box.difficult)
                for box in image.boxes
                if box.label != UNKNOWN
            ]
            found = detector(inputs)[0]["instances"].to("cpu")
            found = found[found.scores >= min_score]
            boxes, labels = found.pred_boxes.tensor.tolist(), found.pred_classes.tolist()
            scores = [f" {score:.2f}" for score in found.scores.tolist()]
            masks = found.pred_masks.numpy() if found.has("pred_masks") else [None] * len(boxes)
            seen = [Drawn(tuple(box), *rest) for box, *rest in zip(boxes, labels, scores, masks, strict=True)]
            for kind, drawn in (("ground_truth", truth), ("detections", judged(seen, truth))):
                paths.append(_draw(image.file, drawn, out_dir / f"{kind}_{k}.png", split.classes))
    return paths


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


def _iou(a: Corners, b: Corners) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both else 0.0


def draw_detections(split: Split, detections: Iterable[Detection], *, out_dir: Path) -> None:
    """Draw every image with its detections, in COCO's result format, as out_dir/<id>.png; ids are relative paths."""
    found: dict[int | str, list[Drawn]] = {}
    for one in detections:
        mask = rle.decode(one["segmentation"]) if "segmentation" in one else None
        label = split.category_ids.index(one["category_id"])
        drawn = Drawn(_corners(one["bbox"]), label, f" {one['score']:.2f}", mask)
        found.setdefault(one["image_id"], []).append(drawn)
    for image in split.images:
        _draw(image.file, found.get(image.id, ()), out_dir / f"{image.id}.png", split.classes)


def _draw(file: Path, boxes: Iterable[Drawn], out: Path, names: Sequence[str]) -> Path:
    image, boxes = read_picture(file), list(boxes)
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
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())
    return out


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
