"""Kinds of detection errors: each by hand, what mending them gains, and COCO's AP50 as the place to start from."""

from pathlib import Path

import numpy as np
import pytest

from detect.coco_evaluation import coco_evaluation
from detect.data.images import Box, ImageRecord, Images
from detect.data.records import Split
from detect.errors import KINDS, errors_of

CAT, DOG = 3, 7  # ids of the data set
THERE = (10.0, 10.0, 20.0, 20.0)
NEAR = (20.0, 10.0, 20.0, 20.0)  # its IoU with THERE is 1 / 3
AWAY = (60.0, 60.0, 20.0, 20.0)


def split(*boxes, images=1):
    """The boxes (class from 0, xywh, crowd), all on the first image."""
    truth = tuple(Box(xywh, label, xywh[2] * xywh[3], crowd=crowd) for label, xywh, crowd in boxes)
    records = [ImageRecord(k, Path(f"{k}.png"), 100, 100, truth if k == 0 else ()) for k in range(images)]
    return Split(Path("a"), ("cat", "dog"), (CAT, DOG), Images.of(records), ())


def found(*detections, image=0):
    return [{"image_id": image, "category_id": c, "bbox": list(box), "score": s} for c, box, s in detections]


@pytest.mark.parametrize(
    ("detections", "kinds"),
    [
        ([(CAT, THERE, 0.9)], {}),
        ([(CAT, NEAR, 0.9)], {"place": 1}),
        ([(DOG, THERE, 0.9)], {"class": 1}),
        ([(DOG, NEAR, 0.9)], {"both": 1, "missed": 1}),
        ([(CAT, AWAY, 0.9)], {"background": 1, "missed": 1}),
        ([(CAT, THERE, 0.9), (CAT, THERE, 0.8)], {"duplicate": 1}),
        ([], {"missed": 1}),
    ],
)
def test_each_kind(detections, kinds):
    count = errors_of(split((0, THERE, False)), found(*detections))["count"]
    assert count == {kind: kinds.get(kind, 0) for kind in KINDS}


def test_what_lies_in_a_crowd_is_no_error():
    errors = errors_of(split((0, THERE, False), (0, AWAY, True)), found((CAT, THERE, 0.9), (CAT, AWAY, 0.8)))
    assert set(errors["count"].values()) == {0} and errors["AP50"] == 100


def test_what_mending_gains_by_hand():
    """One of two boxes found after a false alarm: precision 1/2 up to recall 1/2, that is at 51 of 101 recalls."""
    errors = errors_of(
        split((0, THERE, False), (0, AWAY, False)), found((CAT, (40.0, 10.0, 10.0, 10.0), 0.9), (CAT, THERE, 0.8))
    )
    before = 100 * 51 * 0.5 / 101
    assert errors["AP50"] == pytest.approx(before)
    assert errors["cost"]["background"] == pytest.approx(100 * 51 / 101 - before)
    assert errors["cost"]["missed"] == pytest.approx(50 - before)
    assert errors["cost"]["class"] == errors["cost"]["place"] == errors["cost"]["duplicate"] == 0


def test_of_two_that_one_box_would_mend_the_better_is_kept():
    errors = errors_of(split((0, THERE, False)), found((DOG, THERE, 0.9), (DOG, THERE, 0.8)))
    assert errors["count"]["class"] == 2 and errors["cost"]["class"] == pytest.approx(100)


def test_the_confusion_counts_sure_detections_once():
    truth = split((0, THERE, False), (0, AWAY, False), images=2)
    errors = errors_of(
        truth,
        found((DOG, THERE, 0.9), (CAT, THERE, 0.6), (CAT, AWAY, 0.4)) + found((DOG, THERE, 0.7), image=1),
    )
    assert sorted(errors["confusion"]) == [(0, 1, 1), (0, 2, 1), (2, 0, 1), (2, 1, 1)]


def test_random_detections_begin_at_the_ap50_of_coco():
    rng = np.random.default_rng(0)
    truth, detections = [], []
    for _ in range(30):
        xywh = (*rng.uniform(0, 60, 2).tolist(), *rng.uniform(8, 30, 2).tolist())
        truth.append((int(rng.integers(2)), xywh, bool(rng.random() < 0.1)))
        for _ in range(3):
            box = [v + d for v, d in zip(xywh, rng.normal(0, 3, 4), strict=True)]
            detections.append((int(rng.choice([CAT, DOG])), [*box[:2], *np.abs(box[2:])], float(rng.random())))
    whole = split(*truth)
    errors = errors_of(whole, found(*detections))
    assert errors["AP50"] == pytest.approx(100 * coco_evaluation(whole, found(*detections), "bbox").stats[1])
    assert all(errors["count"][kind] for kind in ("class", "place", "both", "background"))
    assert min(errors["cost"].values()) >= -1e-9
