"""COCO's box metrics of a detector, and pictures of what it finds.

The metrics are pycocotools' to the last digit, computed by faster-coco-eval's C++.
"""

import contextlib
import io
import itertools
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_context, inference_on_dataset
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image, ImageDraw
from torch import nn

from detect.data import CocoDataset, class_names, test_loader

# COCO's summary begins with these six; APs, APm and APl are boxes under 32^2, 96^2 and over 96^2 pixels
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_UPSCALE = 3
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


def evaluate_detector(
    detector: nn.Module, cfg: CfgNode, *, dataset: CocoDataset, out_dir: Path | None = None, num_workers: int = 0
) -> dict[str, Any]:
    """Metrics of the detector on every image of the data set.

    Returns METRICS in 0..100 (None where COCO defines none: no box of that size), `per_class` AP by name,
    `images`, `boxes`, `detections` and `seconds`; {} in the other processes of a distributed run. With `out_dir` the
    detections are left in `out_dir/detections.json`, in COCO's result format.
    """
    start = time.perf_counter()
    collector = _Collector(category_ids(dataset))
    inference_on_dataset(detector, test_loader(dataset, cfg, num_workers=num_workers), collector)
    if not comm.is_main_process():
        return {}
    detections = collector.detections
    if out_dir is not None:
        _write_json(out_dir / "detections.json", detections)
    return score_detections(dataset, detections) | {"seconds": time.perf_counter() - start}


def score_detections(dataset: CocoDataset, detections: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's box metrics of detections in its result format, as `evaluate_detector` returns them.

    Without a single detection every AP is 0 (not undefined) where there are boxes to find.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(dataset.annotations))
        # an empty result list is refused, so a detection that counts for nothing stands in for it
        found = truth.loadRes(detections or [_nothing(truth)])
        evaluation = COCOeval_faster(truth, found, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # (IoU, recall, class, area, most detections)
    per_class = {name: _percent(_mean(precision[:, :, k, 0, -1])) for k, name in enumerate(class_names(dataset))}
    return {
        **{name: _percent(value) for name, value in zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)},
        "per_class": per_class,
        "images": len(truth.getImgIds()),
        "boxes": len(truth.getAnnIds(iscrowd=False)),
        "detections": len(detections),
    }


def category_ids(dataset: CocoDataset) -> list[int]:
    """The data set's category id of each class of a detector."""
    return sorted(category["id"] for category in json.loads(dataset.annotations.read_text())["categories"])


def draw_scenes(
    detector: nn.Module, cfg: CfgNode, *, dataset: CocoDataset, out_dir: Path, count: int = 8, min_score: float = 0.5
) -> list[Path]:
    """Draw the first `count` images with their boxes and with the detector's; returns the paths.

    Written as out_dir/ground_truth_<k>.png and out_dir/detections_<k>.png, three times the size.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    names = class_names(dataset)
    label = dict(zip(category_ids(dataset), names, strict=True))
    coco = json.loads(dataset.annotations.read_text())
    paths = []
    loader = itertools.islice(test_loader(dataset, cfg), count)
    with inference_context(detector), torch.no_grad():
        for k, inputs in enumerate(loader):
            (record,) = inputs
            truth = [
                (*_corners(a["bbox"]), label[a["category_id"]])
                for a in coco["annotations"]
                if a["image_id"] == record["image_id"]
            ]
            found = detector(inputs)[0]["instances"].to("cpu")
            found = found[found.scores >= min_score]
            boxes = found.pred_boxes.tensor.tolist()
            shown = [
                (*box, f"{names[c]} {score:.2f}")
                for box, c, score in zip(boxes, found.pred_classes.tolist(), found.scores.tolist(), strict=True)
            ]
            for kind, drawn in (("ground_truth", truth), ("detections", shown)):
                paths.append(_draw(Path(record["file_name"]), drawn, out_dir / f"{kind}_{k}.png", names))
    return paths


class _Collector(DatasetEvaluator):
    """Gathers detections in COCO's result format, from all processes."""

    def __init__(self, ids: list[int]):
        self.ids = ids
        self.detections: list[dict[str, Any]] = []

    def reset(self) -> None:
        self.detections = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            found = instances_to_coco_json(output["instances"].to("cpu"), record["image_id"])
            self.detections += [{**d, "category_id": self.ids[d["category_id"]]} for d in found]

    def evaluate(self) -> dict:
        self.detections = list(itertools.chain(*comm.gather(self.detections)))
        return {}


def _nothing(truth: COCO) -> dict[str, Any]:
    return {
        "image_id": truth.getImgIds()[0],
        "category_id": truth.getCatIds()[0],
        "bbox": [0.0, 0.0, 0.0, 0.0],
        "score": 0.0,
    }


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _percent(value: float) -> float | None:
    """COCO's 0..1 as 0..100; its -1 says that there is nothing to measure."""
    return None if value < 0 else 100.0 * float(value)


def _corners(box: Iterable[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _draw(image_path: Path, boxes: list[tuple], out: Path, names: list[str]) -> Path:
    with Image.open(image_path) as file:
        image = file.convert("RGB")
    image = image.resize((image.width * _UPSCALE, image.height * _UPSCALE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for *corners, text in boxes:
        colour = _COLOURS[names.index(text.rsplit(" ", 1)[0] if text not in names else text) % len(_COLOURS)]
        x0, y0, x1, y1 = (_UPSCALE * c for c in corners)
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
        at = (x0 + 2, max(y0 - 11, 0))
        pen.rectangle(pen.textbbox(at, text), fill=colour)
        pen.text(at, text, fill="white")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _write(out, buffer.getvalue())


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(content).encode())


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path
