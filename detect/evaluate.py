"""The box metrics of a detector: COCO's of every data set, and Pascal VOC's of those in its layout.

COCO's are in detect/coco_evaluation.py, VOC's in detect/voc_metrics.py. Two files are read otherwise than pycocotools
reads them: one with an annotation of id 0, whose match pycocotools loses (ids are numbered anew here), and one with
boxes whose `area` is 0 or less (which is the box's here, with a note).
"""

import gzip
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.structures import Instances
from detectron2.utils import comm
from hotcoco import COCOeval
from torch import nn

from detect.coco_evaluation import coco_evaluation
from detect.data import DetectionDataset
from detect.data.loader import test_loader
from detect.data.records import Detection, Record, Split
from detect.errors import ERRORS, errors_of
from detect.mask_metrics import mask_metrics
from detect.matches import MATCHES, Matches, coco_matches, to_bytes
from detect.voc_metrics import voc_matches, voc_metrics
from training.files import write_bytes

DETECTIONS = "detections.json.gz"  # in the folder of an evaluation
# COCO's summary begins with these six; APs, APm and APl are boxes under 32^2, 96^2 and over 96^2 pixels
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_COCO_TEXT = "COCO box AP, IoU 0.50:0.95, all areas, 100 detections an image (hotcoco)"
_VOC_TEXT = "VOC AP at IoU 0.5, difficult boxes ignored: VOC_AP50_07 at 11 points, VOC_AP50 continuous"


class ClassCurve(TypedDict):
    """Precision and score of a class at each recall."""

    precision: list[float]
    score: list[float]


class PrecisionRecall(TypedDict):
    """See `precision_recall`."""

    iou: float
    recall: list[float]
    classes: dict[str, ClassCurve | None]


def evaluate_detector(
    detector: nn.Module, cfg: CfgNode, *, dataset: DetectionDataset, out_dir: Path | None = None, num_workers: int = 0
) -> dict[str, object]:
    """Metrics of the detector on every image of the data set.

    Several processes share the images out. Returns what `score_detections` does and `seconds`, in the main process;
    {} in the others. With `out_dir` files are left in it: the detections in COCO's result format (DETECTIONS, which
    nothing here reads), `precision_recall` (pr.json), `errors_of` (errors.json) and the matches of each metric, "COCO",
    and "VOC" of a VOC data set (matches.npz); of a detector that predicts masks there are then MASK_METRICS too, whose
    outlines are read.
    """
    start = time.perf_counter()
    found = find_objects(detector, cfg, dataset=dataset, num_workers=num_workers)
    if not comm.is_main_process():
        return {}
    evaluation, voc = coco_evaluation(dataset.split, found, "bbox"), _voc_matches(dataset.split, found)
    if out_dir is not None:
        packed = gzip.compress(_json(found), mtime=0)  # without the time, so that equal detections are equal files
        write_bytes(out_dir / DETECTIONS, packed)
        write_bytes(out_dir / "pr.json", _json(_precision_recall(dataset.split, evaluation)))
        write_bytes(out_dir / ERRORS, _json(errors_of(dataset.split, found)))
        write_bytes(out_dir / MATCHES, to_bytes({"COCO": coco_matches(evaluation), **voc}))
    scores = _scores(dataset.split, found, evaluation, voc)
    if cfg.MODEL.MASK_ON and out_dir is not None:
        measured = mask_metrics(dataset.split, found)
        scores |= measured | {"metric": f"{scores['metric']}; {measured.pop('mask_metric')}"}
    if cfg.TEST.AUG.ENABLED:
        passes = len(cfg.TEST.AUG.MIN_SIZES) * (2 if cfg.TEST.AUG.FLIP else 1)
        scores["metric"] = (
            f"{scores['metric']}; boxes of {passes} sizes and flips of each image joined (Detectron2's TEST.AUG)"
        )
    return scores | {"seconds": time.perf_counter() - start}


def find_objects(
    detector: nn.Module, cfg: CfgNode, *, dataset: DetectionDataset, num_workers: int = 0
) -> list[Detection]:
    """What the detector finds on every image of the data set, one at a time, in COCO's result format.

    Several processes share the images out; the main one gets all detections.
    """
    collector = _Collector(dataset.split.category_ids)
    seen = GeneralizedRCNNWithTTA(cfg, detector) if cfg.TEST.AUG.ENABLED else detector
    inference_on_dataset(seen, test_loader(dataset, cfg, num_workers=num_workers), collector)
    return collector.detections


def score_detections(dataset: DetectionDataset, detections: list[Detection]) -> dict[str, object]:
    """Metrics of detections in COCO's result format.

    METRICS in 0..100 (None where COCO defines none: no box of that size), `per_class` AP by name, `images`, `boxes` (to
    find: no crowd, not difficult), `detections`, `metric` (what was measured, in words); with a VOC data set also
    VOC_METRICS and `voc_per_class`. Without a single detection every AP is 0 (not undefined) where there are boxes.
    """
    split = dataset.split
    return _scores(split, detections, coco_evaluation(split, detections, "bbox"), _voc_matches(split, detections))


def precision_recall(dataset: DetectionDataset, detections: list[Detection]) -> PrecisionRecall:
    """Precision and score at COCO's 101 recalls for each class at IoU 0.5, all areas, 100 detections an image.

    {"iou", "recall": [101 values], "classes": {name: {"precision": [...], "score": [...]}}}, all in 0..1. A recall that
    is not reached has 0 for both; a class without boxes has None instead of its lists.
    """
    return _precision_recall(dataset.split, coco_evaluation(dataset.split, detections, "bbox"))


def _voc_matches(split: Split, detections: list[Detection]) -> dict[str, Matches]:
    return {} if split.voc_year is None else {"VOC": voc_matches(split, detections)}


def _scores(
    split: Split, detections: list[Detection], evaluation: COCOeval, voc: dict[str, Matches]
) -> dict[str, object]:
    assert evaluation.eval is not None
    precision = evaluation.eval["precision"]  # (IoU, recall, class, area, most detections)
    images = split.images
    boxes = images.to_find & ~images.of_box("crowd") & ~images.of_box("difficult")
    rows = split.rows
    named = list(zip(split.classes, (rows[category] for category in split.category_ids), strict=True))
    return {
        **{name: _percent(value) for name, value in zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)},
        "per_class": {name: _percent(_mean(precision[:, :, k, 0, -1])) for name, k in named},
        **(voc_metrics(voc["VOC"]) if voc else {}),
        "images": len(images),
        "boxes": int(boxes.sum()),
        "detections": len(detections),
        "metric": _COCO_TEXT if not voc else f"{_COCO_TEXT}, difficult boxes as crowds; {_VOC_TEXT}",
    }


def _precision_recall(split: Split, evaluation: COCOeval) -> PrecisionRecall:
    assert evaluation.eval is not None
    iou = evaluation.params.iou_thrs.index(0.5)
    rows = split.rows
    curves: dict[str, ClassCurve | None] = {}
    for name, category in zip(split.classes, split.category_ids, strict=True):
        precision, score = (evaluation.eval[key][iou, :, rows[category], 0, -1] for key in ("precision", "scores"))
        there = precision.min() > -1
        curves[name] = {"precision": precision.tolist(), "score": score.tolist()} if there else None
    return {"iou": 0.5, "recall": evaluation.params.rec_thrs, "classes": curves}


class _Collector(DatasetEvaluator):
    """Gathers detections in COCO's result format, from all processes."""

    def __init__(self, ids: Sequence[int]):
        self.ids = ids
        self.detections: list[Detection] = []

    def reset(self) -> None:
        self.detections = []

    def process(self, inputs: list[Record], outputs: list[dict[str, Instances]]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            found: list[Detection] = instances_to_coco_json(output["instances"].to("cpu"), record["image_id"])
            self.detections += [{**d, "category_id": self.ids[d["category_id"]]} for d in found]

    def evaluate(self) -> dict[str, object]:
        self.detections = list(itertools.chain(*comm.gather(self.detections)))
        return {}


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else -1.0


def _percent(value: float) -> float | None:
    """COCO's 0..1 as 0..100; its -1 says that there is nothing to measure."""
    return None if value < 0 else 100.0 * float(value)


def _json(content: object) -> bytes:
    return json.dumps(content, allow_nan=False).encode()
