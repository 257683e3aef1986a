"""Pictures of what a detector finds, beside what there is to find."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from torch import nn

from detect.data import DetectionDataset
from detect.data.loader import test_loader
from detect.data.picture import read_picture
from detect.data.records import UNKNOWN, Detection, Split
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

_Drawn: TypeAlias = tuple[Corners, int, str, np.ndarray | None]


def draw_scenes(
    detector: nn.Module,
    cfg: CfgNode,
    *,
    dataset: DetectionDataset,
    out_dir: Path,
    count: int = 8,
    min_score: float = 0.5,
) -> list[Path]:
    """Draw the first `count` images with their boxes and with the detector's; returns the paths.

    Written as out_dir/ground_truth_<k>.png and out_dir/detections_<k>.png, small images up to three times as large.
    What a detector's masks cover is tinted.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    split, paths = dataset.split, []
    loader = itertools.islice(test_loader(dataset, cfg), count)
    with inference_context(detector), torch.no_grad():
        for k, inputs in enumerate(loader):
            image = split.images[k]
            truth = [(_corners(box.xywh), box.label, "") for box in image.boxes if box.label != UNKNOWN]
            found = detector(inputs)[0]["instances"].to("cpu")
            found = found[found.scores >= min_score]
            boxes, labels = found.pred_boxes.tensor.tolist(), found.pred_classes.tolist()
            scores = [f" {score:.2f}" for score in found.scores.tolist()]
            masks = found.pred_masks.numpy() if found.has("pred_masks") else itertools.repeat(None)
            seen = zip(boxes, labels, scores, masks, strict=False)
            for kind, drawn in (("ground_truth", ((*one, None) for one in truth)), ("detections", seen)):
                paths.append(_draw(image.file, drawn, out_dir / f"{kind}_{k}.png", split.classes))
    return paths


def draw_detections(split: Split, detections: Iterable[Detection], *, out_dir: Path) -> None:
    """Draw every image with its detections, in COCO's result format, as out_dir/<id>.png; ids are relative paths."""
    found: dict[int | str, list[_Drawn]] = {}
    for one in detections:
        mask = rle.decode(one["segmentation"]) if "segmentation" in one else None
        drawn = _corners(one["bbox"]), split.category_ids.index(one["category_id"]), f" {one['score']:.2f}", mask
        found.setdefault(one["image_id"], []).append(drawn)
    for image in split.images:
        _draw(image.file, found.get(image.id, ()), out_dir / f"{image.id}.png", split.classes)


def _draw(file: Path, boxes: Iterable[_Drawn], out: Path, names: Sequence[str]) -> Path:
    """Boxes are (left, top, right, bottom), label, what is written after the class name, mask of the image's size."""
    image, boxes = read_picture(file), list(boxes)
    for _, label, _, mask in boxes:
        if mask is not None:
            tint = Image.new("RGB", image.size, _COLOURS[label % len(_COLOURS)])
            image.paste(Image.blend(image, tint, _TINT), mask=Image.fromarray(mask.astype(np.uint8) * 255))
    scale = max(1, min(_UPSCALE, _LARGE // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for corners, label, suffix, _ in boxes:
        colour = _COLOURS[label % len(_COLOURS)]
        x0, y0, x1, y1 = (scale * c for c in corners)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
        at, text = (x0 + 2, max(y0 - 11, 0)), f"{names[label]}{suffix}"
        pen.rectangle(pen.textbbox(at, text), fill=colour)
        pen.text(at, text, fill="white")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())
    return out


def _corners(box: Sequence[float]) -> Corners:
    x, y, width, height = box
    return x, y, x + max(width, 0), y + max(height, 0)
