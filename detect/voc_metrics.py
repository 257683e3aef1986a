"""Pascal VOC's average precision at IoU 0.5, as Detectron2's PascalVOCDetectionEvaluator computes it.

Everingham et al., IJCV 2010 (11 points) and 2015 (continuous). Detectron2's own evaluator reads files, needs whole
numbers in them and fails without detections, so the computation is here; a test holds the numbers to be equal.
"""

import numpy as np
from numpy.typing import NDArray

from detect.data.images import UNKNOWN
from detect.data.records import Detection, Split
from detect.data.voc import PIXEL
from detect.matches import HIT, IGNORED, MISS, Matches

VOC_METRICS = ("VOC_AP50_07", "VOC_AP50")  # 11 points, continuous
_IOU = 0.5


def voc_metrics(matches: Matches) -> dict[str, object]:
    """VOC_METRICS in 0..100, means over the classes that have a box to find, and `voc_per_class` by metric and name."""
    per_class: dict[str, dict[str, float | None]] = {name: {} for name in VOC_METRICS}
    for k, name in enumerate(matches.classes):
        curve = _curve(matches.of_class(k)[1][:, 0], int(matches.boxes[:, k].sum()))
        for metric, ap in zip(VOC_METRICS, (ap_11_points, ap_continuous), strict=True):
            per_class[metric][name] = None if curve is None else 100.0 * ap(*curve)
    means = {}
    for metric, values in per_class.items():
        there = [value for value in values.values() if value is not None]
        means[metric] = float(np.mean(there)) if there else None
    return {**means, "voc_per_class": per_class}


def voc_matches(split: Split, detections: list[Detection]) -> Matches:
    """Which detections, in COCO's result format, are right by VOC's rule.

    Boxes and scores are rounded to 1 and 3 decimals first, as Detectron2 does, which changes ties. A detection that
    overlaps a difficult box most counts for nothing.
    """
    place = {image.id: k for k, image in enumerate(split.images)}
    label = {category: k for k, category in enumerate(split.category_ids)}
    found: list[list[tuple[int, tuple[float, ...]]]] = [[] for _ in split.classes]
    for detection in detections:
        found[label[detection["category_id"]]].append((place[detection["image_id"]], _rounded(detection)))
    boxes = np.zeros((len(split.images), len(split.classes)), dtype=np.int64)  # recall is over those not difficult
    for i, image in enumerate(split.images):
        for box in image.boxes:
            if box.label != UNKNOWN and not box.difficult:
                boxes[i, box.label] += 1
    return Matches.of_classes(split.classes, (_IOU,), boxes, [_match(split, k, found[k]) for k in range(len(found))])


def ap_11_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or a higher one."""
    total = 0.0
    for threshold in np.arange(0.0, 1.1, 0.1):
        reached = recall >= threshold
        total += precision[reached].max() if reached.any() else 0.0
    return float(total / 11.0)  # divided once, so that perfect detections score exactly 1


def ap_continuous(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision that is made to fall with recall."""
    edges = np.concatenate(([0.0], recall, [1.0]))
    heights = np.concatenate(([0.0], precision, [0.0]))
    heights = np.maximum.accumulate(heights[::-1])[::-1]
    steps = np.flatnonzero(edges[1:] != edges[:-1])
    return float(np.sum((edges[steps + 1] - edges[steps]) * heights[steps + 1]))


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 4) and (M, 4) whose corners name their first and last pixel -> (N, M)."""
    left_top = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    right_bottom = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    inner = np.maximum(right_bottom - left_top + PIXEL, 0.0).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2] + PIXEL).prod(axis=1) for b in (boxes, truth)]
    return inner / (areas[0][:, None] + areas[1][None, :] - inner)


def _rounded(detection: Detection) -> tuple[float, ...]:
    """Score and corners; 32-bit floats, as a detector gives them, and pixels counted from 1."""
    x, y, width, height = (np.float32(v) for v in detection["bbox"])
    corners = x + np.float32(PIXEL), y + np.float32(PIXEL), x + width, y + height
    return float(f"{detection['score']:.3f}"), *(float(f"{v:.1f}") for v in corners)


def _match(
    split: Split, label: int, found: list[tuple[int, tuple[float, ...]]]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Image (D,) and flag (D, 1) of each detection of a class, best score first."""
    truth = [[box for box in image.boxes if box.label == label] for image in split.images]
    images = np.array([image for image, _ in found], dtype=np.int64)
    rows = np.array([row for _, row in found], dtype=np.float64).reshape(-1, 5)  # score, x0, y0, x1, y1
    matched = np.full(len(rows), -1)  # which box, numbered over all images; -1: none
    ignored = np.zeros(len(rows), dtype=bool)
    first = np.cumsum([0, *map(len, truth)])  # the number of each image's first box
    by_image = np.argsort(images, kind="stable")
    # Image by image: only boxes of the same picture can match. Which of them a detection is for follows from overlap
    # alone, taken or not, so it does not depend on the order of the detections; VOC's development kit does the same.
    for here in np.split(by_image, np.flatnonzero(np.diff(images[by_image])) + 1):
        image = images[here[0]] if len(here) else -1
        if image < 0 or not truth[image]:
            continue
        corners = np.array([_annotated(box.xywh) for box in truth[image]])
        shared = overlaps(rows[here, 1:], corners)  # (detections, boxes)
        best = shared.argmax(axis=1)
        hit = shared[np.arange(len(here)), best] > _IOU
        ignored[here] = hit & np.array([box.difficult for box in truth[image]])[best]
        matched[here] = np.where(hit, first[image] + best, -1)
    order = np.argsort(-rows[:, 0])  # Detectron2's sort: with another, ties would fall otherwise
    matched, ignored = matched[order], ignored[order]
    # From here on by falling score. `unique` gives the first place of each box number: the best detection on that box.
    # The others on it are misses, as are those on none (-1, whose first place is taken out again below).
    right = np.zeros(len(rows), dtype=bool)
    right[np.unique(matched, return_index=True)[1]] = True
    right &= matched >= 0
    flags = np.where(ignored, IGNORED, np.where(right, HIT, MISS))
    return images[order], flags.astype(np.uint8)[:, None]


def _curve(flags: NDArray[np.uint8], wanted: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall and precision after each detection of a class, best score first; None if no box is to be found."""
    if wanted == 0:
        return None
    # a detection on a difficult box is neither hit nor miss: the curve stays where it is
    hits, misses = np.cumsum(flags == HIT), np.cumsum(flags == MISS)
    return hits / wanted, hits / np.maximum(hits + misses, np.finfo(np.float64).eps)


def _annotated(xywh: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, width, height = xywh
    return x + PIXEL, y + PIXEL, x + width, y + height
