"""What is kept of each image gives pycocotools' numbers again, to the last digit, and damaged files are refused."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from support.by_pycocotools import by_pycocotools, splits_and_detections
from support.scenes_and_guesses import guesses, scenes

from detect.coco_evaluation import coco_evaluation
from detect.evaluate import score_detections
from detect.matches import HIT, IGNORED, MISS, coco_matches, from_bytes, to_bytes
from detect.voc_metrics import VOC_METRICS, voc_matches, voc_metrics

RECALLS = np.linspace(0, 1, 101)


def matches_of(split, detections):
    return coco_matches(coco_evaluation(split, detections, "bbox"))


def matched_by_pycocotools(reference):
    """For each class the images of its detections, and their flags, by what pycocotools matched for all areas."""
    parameters = reference.params
    found = []
    for k in range(len(parameters.catIds)):
        first = k * len(parameters.areaRng) * len(parameters.imgIds)
        matched = [one for one in reference.evalImgs[first : first + len(parameters.imgIds)] if one is not None]
        scores = np.concatenate([[], *(one["dtScores"] for one in matched)])
        order = np.argsort(-scores, kind="mergesort")
        images = [one["image_id"] - 1 for one in matched for _ in one["dtIds"]]
        right, ignored = (
            np.concatenate([np.zeros((len(parameters.iouThrs), 0)), *(one[key] for one in matched)], axis=1)
            for key in ("dtMatches", "dtIgnore")
        )
        flags = np.where(ignored, IGNORED, np.where(right, HIT, MISS))
        found.append(([images[d] for d in order], flags.T[order].tolist()))
    return found


def accumulated(matches):
    """pycocotools' precision (IoU, recall, class) from matches alone, line by line as its `accumulate` computes it."""
    precision = np.full((len(matches.ious), len(RECALLS), len(matches.classes)), -1.0)
    for k in range(len(matches.classes)):
        wanted = int(matches.boxes[:, k].sum())
        for t, column in enumerate(matches.of_class(k)[1].T if wanted else ()):
            hits, misses = np.cumsum(column == HIT).astype(float), np.cumsum(column == MISS).astype(float)
            falling = np.maximum.accumulate((hits / (misses + hits + np.spacing(1)))[::-1])[::-1]
            places = np.searchsorted(hits / wanted, RECALLS)
            precision[t, :, k] = np.append(falling, np.zeros(1))[np.minimum(places, len(falling))]
    return precision


def mean(precision):
    return precision[precision > -1].mean()


CASES = {"distinct": {}, "ties": {"levels": 7}, "equal overlaps": {"shift": 0.0, "levels": 3}}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_every_image_once_is_pycocotools_to_the_last_digit(case, seed):
    split = scenes(40, seed=seed)
    detections = guesses(split, seed=seed, **CASES[case])
    reference = by_pycocotools(split, detections)
    matches = from_bytes(to_bytes({"COCO": matches_of(split, detections)}), "a file")["COCO"]
    precision = accumulated(matches)
    np.testing.assert_array_equal(precision, reference.eval["precision"][:, :, :, 0, -1])
    assert [mean(precision), mean(precision[0]), mean(precision[5])] == list(reference.stats[:3])
    assert (matches.flags == IGNORED).any() and 0.05 < mean(precision) < 0.999
    ours = score_detections(SimpleNamespace(split=split), detections)
    assert ours["per_class"] == {name: 100 * mean(precision[:, :, k]) for k, name in enumerate(matches.classes)}
    assert list(matches.classes) == ["three", "seven", "nine"]  # by id


@settings(max_examples=200, deadline=None, derandomize=True)
@given(splits_and_detections())
def test_matches_are_pycocotools_own(made):
    split, detections = made
    matches, reference = matches_of(split, detections), by_pycocotools(split, detections)
    kept = [matches.of_class(k) for k in range(len(matches.classes))]
    assert [(images.tolist(), flags.tolist()) for images, flags in kept] == matched_by_pycocotools(reference)
    counted = np.zeros_like(matches.boxes)
    for box in reference.cocoGt.dataset["annotations"]:
        counted[box["image_id"] - 1, box["category_id"]] += not box["iscrowd"]
    np.testing.assert_array_equal(matches.boxes, counted)
    np.testing.assert_array_equal(accumulated(matches), reference.eval["precision"][:, :, :, 0, -1])


def test_without_a_detection_there_are_the_boxes():
    split = scenes(3, special=0.0)
    matches = matches_of(split, [])
    assert len(matches.images) == 0 and matches.flags.shape == (0, 10) and matches.problem() is None
    assert matches.boxes.sum() == sum(len(image.boxes) for image in split.images)


def test_a_hundred_detections_of_an_image_and_class_are_kept():
    split = scenes(2)
    detections = [{"image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "score": k / 150} for k in range(150)]
    matches = matches_of(split, detections)
    assert len(matches.images) == 100 and set(matches.images) == {1}


def test_a_better_detection_takes_the_box_and_crowds_take_many():
    split = scenes(1, special=0.0)
    box = [10.0, 10.0, 20.0, 20.0]
    (record,) = split.images
    one = type(record.boxes[0])(tuple(box), 0, 400.0)
    crowd = type(one)((60.0, 10.0, 20.0, 20.0), 0, 400.0, crowd=True)
    split = type(split)(
        split.source, split.classes, split.category_ids, (type(record)(0, record.file, 64, 96, (one, crowd)),), ()
    )
    on_crowd = [60.0, 10.0, 20.0, 20.0]
    tried = [(box, 0.9), (box, 0.8), (on_crowd, 0.7), (on_crowd, 0.6), ([10.0, 10.0, 20.0, 16.0], 0.95)]
    found = [{"image_id": 0, "category_id": 9, "bbox": b, "score": s} for b, s in tried]
    matches = matches_of(split, found)
    # an IoU of 0.8 comes first: it has the box up to 0.8, the perfect one above; the next copy never
    flags = matches.of_class(2)[1]
    assert flags[0].tolist() == [HIT] * 7 + [MISS] * 3
    assert flags[1].tolist() == [MISS] * 7 + [HIT] * 3
    assert flags[2].tolist() == [MISS] * 10
    assert (flags[3:] == IGNORED).all()
    assert matches.boxes.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_voc_metric_follows_from_what_is_kept(seed):
    split = scenes(40, seed=seed, voc_year=2007)
    detections = guesses(split, seed=seed, levels=20)
    kept = from_bytes(to_bytes({"VOC": voc_matches(split, detections)}), "a file")["VOC"]
    ours, again = score_detections(SimpleNamespace(split=split), detections), voc_metrics(kept)
    assert {name: ours[name] for name in (*VOC_METRICS, "voc_per_class")} == again
    assert (kept.flags == IGNORED).any() and 5 < again["VOC_AP50"] < 95


def test_file_is_small_the_same_each_time_and_has_no_objects():
    split = scenes(40)
    matches = matches_of(split, guesses(split))
    content = to_bytes({"COCO": matches})
    assert content == to_bytes({"COCO": matches})
    assert len(content) < 8 * len(matches.images)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} == {"U", "u", "f"}
        assert file["COCO.flags"].dtype == file["COCO.images"].dtype == np.uint8


def _changed(content, **arrays):
    with np.load(io.BytesIO(content)) as file:
        kept = {name: file[name] for name in file.files}
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in {**kept, **arrays}.items() if value is not None})
    return out.getvalue()


def test_what_is_no_such_file_is_refused():
    split = scenes(6)
    content = to_bytes({"COCO": matches_of(split, guesses(split))})
    bare = io.BytesIO()
    np.save(bare, np.zeros(3))
    wrong = {
        "torn": content[: len(content) // 2],
        "text": b"no archive",
        "one array": bare.getvalue(),
        "other format": _changed(content, format=np.array("matches 2")),
        "missing array": _changed(content, **{"COCO.flags": None}),
        "objects": _changed(content, **{"COCO.flags": np.array([{}])}),
        "too few flags": _changed(content, **{"COCO.flags": np.zeros((2, 10), np.uint8)}),
        "unknown image": _changed(content, **{"COCO.images": np.full(from_bytes(content, "")["COCO"].images.shape, 6)}),
        "classes in disorder": _changed(content, **{"COCO.starts": np.array([0, 9, 3, 0])}),
    }
    for what, damaged in wrong.items():
        with pytest.raises(ValueError, match=r"run/matches\.npz: not the matches of an evaluation"):
            pytest.fail(f"{what}: {from_bytes(damaged, 'run/matches.npz')}")
