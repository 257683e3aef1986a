"""Pictures of what a detector finds, beside what there is to find."""

import io
import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from PIL import Image
from torch import nn

from detect.data import DetectionDataset
from detect.data.loader import test_loader
from detect.data.records import Detection, Split
from detect.marks import MIN_SCORE, Drawn, draw, found_boxes, judged, true_boxes
from training.files import write_bytes


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
            truth = true_boxes(image)
            found = detector(inputs)[0]["instances"].to("cpu")
            found = found[found.scores >= min_score]
            boxes, labels = found.pred_boxes.tensor.tolist(), found.pred_classes.tolist()
            scores = [f" {score:.2f}" for score in found.scores.tolist()]
            masks = found.pred_masks.numpy() if found.has("pred_masks") else [None] * len(boxes)
            seen = [Drawn(tuple(box), *rest) for box, *rest in zip(boxes, labels, scores, masks, strict=True)]
            for kind, drawn in (("ground_truth", truth), ("detections", judged(seen, truth))):
                paths.append(_write(draw(image.file, drawn, split.classes), out_dir / f"{kind}_{k}.png"))
    return paths


def draw_detections(split: Split, detections: Iterable[Detection], *, out_dir: Path) -> None:
    """Draw every image with its detections, in COCO's result format, as out_dir/<id>.png; ids are relative paths."""
    found: dict[int | str, list[Detection]] = {}
    for one in detections:
        found.setdefault(one["image_id"], []).append(one)
    for image in split.images:
        boxes = found_boxes(found.get(image.id, ()), split)
        _write(draw(image.file, boxes, split.classes), out_dir / f"{image.id}.png")


def _write(picture: Image.Image, out: Path) -> Path:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())
    return out
