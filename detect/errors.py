"""What is wrong with a detector's detections, by kind, and what each kind costs.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020 (arXiv 2008.08115), section
2.2, with the order of tests of its released code. A detection that is not right at IoU 0.5 is one of

    place       a box of its class is near, at an IoU of 0.1 to 0.5
    class       a box of another class is there, at an IoU of 0.5 or more
    duplicate   it is on a box of its class that a better one has
    background  no box is near
    both        what is left: wrong place and wrong class

and a box that nothing found, nor would have found in the right place or with the right class, is

    missed

What a kind costs is by how much AP50 rises when its errors alone are mended: a wrong place or class is put right, of
the best detection for each box, and all others of the kind are taken away; of missed boxes fewer have to be found.
Rises do not add up. Detections on crowd or difficult boxes count for nothing; the released code has them as errors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from detect.data.images import UNKNOWN, Box
from detect.data.records import Detection, Split

ERRORS = "errors.json"  # in the folder of an evaluation
KINDS = ("class", "place", "both", "duplicate", "background", "missed")
_RIGHT, _NEAR = 0.5, 0.1  # IoU
_MOST = 100  # detections an image
_SURE = 0.5  # score of a detection that the confusion counts
_RECALLS = np.linspace(0, 1, 101)


class Errors(TypedDict):
    """`cost`: points of AP50 by kind. `count`: errors by kind. `classes`: the K names.

    `confusion`: [class of the box, class of the detection on it, how many], of detections with a score of at least
    `min_score`; class K stands for no box, and for no detection. Pairs that do not occur are left out.
    """

    AP50: float
    cost: dict[str, float]
    count: dict[str, int]
    classes: list[str]
    confusion: list[tuple[int, int, int]]
    min_score: float


@dataclass
class _Found:
    """Detections of all images while they are judged: score, class, right, kind of error ("" where right or ignored),
    and of those that a mended place or class would make right, the class and the number of their box."""

    score: list[float] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    mended: list[tuple[int, int] | None] = field(default_factory=list)

    def add(self, score: float, label: int, kind: str, mended: tuple[int, int] | None = None) -> None:
        """One more; `kind` "" is right."""
        self.score.append(score)
        self.label.append(label)
        self.right.append(not kind)
        self.kind.append(kind)
        self.mended.append(mended)


def errors_of(split: Split, detections: Iterable[Detection]) -> Errors:
    """The errors of detections in COCO's result format on the images of a split."""
    label = {category: k for k, category in enumerate(split.category_ids)}
    by_image: dict[int | str, list[Detection]] = defaultdict(list)
    for detection in detections:
        by_image[detection["image_id"]].append(detection)
    found, n_classes = _Found(), len(split.classes)
    boxes, missed = np.zeros(n_classes, dtype=int), np.zeros(n_classes, dtype=int)
    confusion = np.zeros((n_classes + 1, n_classes + 1), dtype=int)
    first = 0
    for image in split.images:
        truth = [box for box in image.boxes if box.label != UNKNOWN]
        here = sorted(by_image.get(image.id, ()), key=lambda one: -one["score"])[:_MOST]
        judged = _Image(truth, [one["bbox"] for one in here], [label[one["category_id"]] for one in here])
        judged.into(found, [one["score"] for one in here], first)
        np.add.at(boxes, judged.true_labels, 1)
        np.add.at(missed, judged.true_labels[judged.missed], 1)
        judged.confuse(confusion, [one["score"] >= _SURE for one in here])
        first += len(judged.true_labels)
    return {
        **_costs(found, boxes, missed),
        "classes": list(split.classes),
        "confusion": [(int(i), int(j), int(confusion[i, j])) for i, j in zip(*confusion.nonzero(), strict=True)],
        "min_score": _SURE,
    }


class _Image:
    """The boxes and the detections, best first, of one image; the IoUs of both (D, G)."""

    def __init__(self, truth: Sequence[Box], found: Sequence[Sequence[float]], labels: Sequence[int]):
        counted = [box for box in truth if not (box.crowd or box.difficult)]
        self._labels = np.array(labels, dtype=int)
        self.true_labels = np.array([box.label for box in counted], dtype=int)
        self._iou = _ious(found, counted)
        self._same = self._labels[:, None] == self.true_labels[None, :]
        self._ignored = self._on_ignored(found, [box for box in truth if box.crowd or box.difficult])
        self._box = self._match(self._iou * self._same)  # of each detection that is right, else -1
        self._taken = np.isin(np.arange(len(counted)), self._box)
        self.missed = ~self._taken  # until `into` has seen what would have found them

    def _on_ignored(self, found: Sequence[Sequence[float]], boxes: Sequence[Box]) -> NDArray[np.bool_]:
        same = self._labels[:, None] == np.array([box.label for box in boxes], dtype=int)[None, :]
        return ((_ious(found, boxes) >= _RIGHT) & same).any(axis=1)

    def _match(self, iou: NDArray[np.float64]) -> NDArray[np.int_]:
        """Each detection takes the free box of its class that it overlaps most."""
        box, free = np.full(len(iou), -1), iou.copy()
        for d in np.flatnonzero((iou >= _RIGHT).any(axis=1)):
            best = int(free[d].argmax())
            if free[d, best] >= _RIGHT:
                box[d] = best
                free[:, best] = 0
        return box

    def into(self, found: _Found, scores: Sequence[float], first: int) -> None:
        """Add the detections; `first`: the number of the image's first box among those of all images."""
        missed = ~self._taken
        for d, (score, label) in enumerate(zip(scores, self._labels.tolist(), strict=True)):
            if self._box[d] >= 0:
                found.add(score, label, "")
            elif not self._ignored[d]:
                kind, box = self._kind(d)
                mended = None
                if box >= 0 and not self._taken[box]:
                    missed[box] = False
                    mended = (int(self.true_labels[box]), first + box)
                found.add(score, label, kind, mended)
        self.missed = missed

    def _kind(self, d: int) -> tuple[str, int]:
        """The error of a detection, and the box that it would be right on in another place or with another class."""
        if not len(self.true_labels):
            return "background", -1
        same, other = self._iou[d] * self._same[d], self._iou[d] * ~self._same[d]
        if _NEAR <= same.max() <= _RIGHT:
            return "place", int(same.argmax())
        if other.max() >= _RIGHT:
            return "class", int(other.argmax())
        if (same * self._taken).max() >= _RIGHT:
            return "duplicate", -1
        return ("background" if self._iou[d].max() <= _NEAR else "both"), -1

    def confuse(self, confusion: NDArray[np.int_], sure: Sequence[bool]) -> None:
        """Count boxes by what is on them: one detection each, those that overlap most first, of whatever class."""
        iou = np.where(np.array(sure, dtype=bool)[:, None], self._iou, 0.0)
        boxes, found = np.full(len(self.true_labels), -1), np.full(len(self._labels), -1)
        for flat in np.argsort(-iou, axis=None, kind="stable"):
            d, g = np.unravel_index(flat, iou.shape)
            if iou[d, g] < _RIGHT:
                break
            if found[d] < 0 and boxes[g] < 0:
                found[d], boxes[g] = g, d
        for g, d in enumerate(boxes):
            confusion[self.true_labels[g], self._labels[d] if d >= 0 else -1] += 1
        for d, g in enumerate(found):
            if g < 0 and sure[d] and not self._ignored[d]:
                confusion[-1, self._labels[d]] += 1


def _ious(found: Sequence[Sequence[float]], boxes: Sequence[Box]) -> NDArray[np.float64]:
    """(D, G); of a crowd the share of the detection that lies in it."""
    if not found or not boxes:
        return np.zeros((len(found), len(boxes)))
    corners = [np.array(some, dtype=np.float64) for some in (found, [box.xywh for box in boxes])]
    return np.asarray(rle.iou(*corners, [int(box.crowd) for box in boxes]))


class _Costs(TypedDict):
    AP50: float
    cost: dict[str, float]
    count: dict[str, int]


def _costs(found: _Found, boxes: NDArray[np.int_], missed: NDArray[np.int_]) -> _Costs:
    """AP50, and by how much each kind of error lowers it."""
    scores, labels = np.array(found.score), np.array(found.label, dtype=int)
    right, kinds = np.array(found.right, dtype=bool), np.array(found.kind, dtype=object)
    before = _mean_ap(scores, labels, right, boxes)
    cost = {}
    for kind in KINDS[:-1]:
        wrong = kinds == kind
        mended = _best_for_each_box(found, wrong)
        relabelled = labels.copy()
        relabelled[list(mended)] = list(mended.values())
        now = right.copy()
        now[list(mended)] = True
        stay = ~wrong | now
        cost[kind] = _mean_ap(scores[stay], relabelled[stay], now[stay], boxes) - before
    cost["missed"] = _mean_ap(scores, labels, right, boxes - missed) - before
    count = {kind: int((kinds == kind).sum()) for kind in KINDS[:-1]} | {"missed": int(missed.sum())}
    return {"AP50": before, "cost": cost, "count": count}


def _best_for_each_box(found: _Found, wrong: NDArray[np.bool_]) -> Mapping[int, int]:
    """The detections that are right once mended, with their class then: of those for one box the best."""
    best: dict[int, int] = {}
    for d in np.flatnonzero(wrong):
        if (mended := found.mended[d]) is not None:
            other = best.get(mended[1])
            if other is None or found.score[other] < found.score[d]:
                best[mended[1]] = int(d)
    return {d: found.mended[d][0] for d in best.values()}  # type: ignore[index]


def _mean_ap(
    scores: NDArray[np.float64], labels: NDArray[np.int_], right: NDArray[np.bool_], boxes: NDArray[np.int_]
) -> float:
    """AP at 101 recalls in 0..100, mean over the classes that have boxes."""
    found = []
    for k in np.flatnonzero(boxes):
        mine = labels == k
        found.append(_ap(right[mine][np.argsort(-scores[mine], kind="stable")], int(boxes[k])))
    return float(np.mean(found)) if found else 0.0


def _ap(right: NDArray[np.bool_], n_boxes: int) -> float:
    hits = right.cumsum()
    recall, precision = hits / n_boxes, hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return 100 * float(best[np.searchsorted(recall, _RECALLS, side="left")].mean())
