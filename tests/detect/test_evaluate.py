"""COCO's metrics are pycocotools' to the bit; the ends of the scale are exact."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from PIL import Image
from support.by_pycocotools import by_pycocotools, splits_and_detections
from support.scenes_and_guesses import guesses, scenes
from support.written_detections import written_detections
from torch import nn

from detect.coco_evaluation import coco_evaluation
from detect.data import CocoDataset
from detect.detector_config import make_config
from detect.evaluate import METRICS, evaluate_detector, score_detections
from detect.pictures import draw_scenes
from detect.settings import DetectorSettings
from pruning.errors import Failure


@pytest.fixture
def dataset(tmp_path):
    """Six images with four boxes each of three classes, whose ids have gaps."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        for _ in range(4):
            x, y, w, h = (float(v) for v in rng.uniform((0, 0, 8, 8), (40, 20, 50, 40)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(rng.choice([3, 7, 9])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 9, "name": "nine"}, {"id": 3, "name": "three"}, {"id": 7, "name": "seven"}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoDataset(path, tmp_path)


def _truth(dataset):
    return json.loads(dataset.annotations.read_text())["annotations"]


def _as_detections(annotations, score=1.0):
    return [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": score} for a in annotations]


def _noisy(dataset):
    rng = np.random.default_rng(1)
    detections = []
    for a in _truth(dataset) * 3:
        box = [float(v) for v in np.array(a["bbox"]) + rng.normal(0, 3, 4)]
        category = a["category_id"] if rng.random() < 0.8 else 3
        detections.append(
            {"image_id": a["image_id"], "category_id": category, "bbox": box, "score": float(rng.random())}
        )
    return detections


def test_metrics_equal_pycocotools_exactly(dataset):
    detections = _noisy(dataset)
    reference = by_pycocotools(dataset.split, detections)
    ours = score_detections(dataset, detections)
    expected = [None if v < 0 else 100 * float(v) for v in reference.stats[:6]]
    assert [ours[name] for name in METRICS] == expected
    assert 5 < ours["AP"] < 95
    by_class = np.moveaxis(reference.eval["precision"][:, :, :, 0, -1], -1, 0)
    assert list(ours["per_class"]) == ["three", "seven", "nine"]
    assert list(ours["per_class"].values()) == [100 * precision.flatten().mean() for precision in by_class]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(splits_and_detections())
def test_evaluation_is_pycocotools_to_the_bit(made):
    split, detections = made
    reference, ours = by_pycocotools(split, detections), coco_evaluation(split, detections, "bbox")
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[key], reference.eval[key])
    np.testing.assert_array_equal(ours.stats, reference.stats)
    scores = score_detections(SimpleNamespace(split=split), detections)
    assert [scores[name] for name in METRICS] == [None if v < 0 else 100 * float(v) for v in reference.stats[:6]]


@pytest.mark.parametrize("seed", range(8))
def test_many_detections_of_an_image_are_evaluated_as_by_pycocotools(seed):
    """200 a class and image, of which 100 count, with equal scores among them."""
    split = scenes(12, seed=seed)
    detections = guesses(split, seed=seed, levels=50) * 40
    reference, ours = by_pycocotools(split, detections), coco_evaluation(split, detections, "bbox")
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[key], reference.eval[key])
    np.testing.assert_array_equal(ours.stats, reference.stats)


def test_any_ids_and_sizes_do(dataset):
    """Ids of classes below 0 and beyond 64 bits, and an image that is too large for any integer type."""
    detections = _noisy(dataset)
    expected = score_detections(dataset, detections)
    other = {3: -3, 7: 7, 9: 10**25}
    coco = json.loads(dataset.annotations.read_text())
    for kind, key in (("annotations", "category_id"), ("categories", "id")):
        coco[kind] = [{**one, key: other[one[key]]} for one in coco[kind]]
    coco["images"][0] |= {"width": 10**25, "height": 10**25}
    dataset.annotations.write_text(json.dumps(coco))
    moved = [{**d, "category_id": other[d["category_id"]]} for d in detections]
    assert score_detections(CocoDataset(dataset.annotations, dataset.images), moved) == expected


def test_detections_of_an_unknown_class_count_for_nothing(dataset, capfd):
    detections = _noisy(dataset)
    expected = score_detections(dataset, detections)
    unknown = [{**detections[0], "category_id": 4}]
    assert score_detections(dataset, [*unknown, *detections]) == {**expected, "detections": len(detections) + 1}
    assert capfd.readouterr() == ("", "")


def test_the_truth_as_detections_scores_100(dataset):
    result = score_detections(dataset, _as_detections(_truth(dataset)))
    assert result["AP"] == result["AP50"] == result["AP75"] == 100.0
    assert result["APl"] is None  # no box is larger than 96 x 96
    assert (result["images"], result["boxes"], result["detections"]) == (6, 24, 24)


def test_half_of_the_boxes_score_about_half(dataset):
    # all but image 0, 1, 2: recall 1/2 at full precision; COCO's 101 recall points make 50 or 51 of them
    kept = [a for a in _truth(dataset) if a["image_id"] >= 3]
    assert 35 < score_detections(dataset, _as_detections(kept))["AP"] < 65


def test_no_detection_scores_0(dataset):
    result = score_detections(dataset, [])
    assert result["AP"] == result["AP50"] == 0.0
    assert set(result["per_class"].values()) == {0.0} and result["detections"] == 0


@pytest.mark.cpu_only
def test_a_fork_of_a_process_that_has_evaluated_is_told_so_and_does_not_hang(dataset):
    expected = score_detections(dataset, [])
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool, pytest.raises(Failure, match="was forked"):
        pool.submit(score_detections, dataset, []).result()
    assert score_detections(dataset, []) == expected


class Oracle(nn.Module):
    """Answers with boxes of a table; knows nothing about images."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, inputs):
        from detectron2.structures import Boxes, Instances

        outputs = []
        for record in inputs:
            found = Instances((record["height"], record["width"]))
            boxes, classes = self.answers.get(record["image_id"], ([], []))
            found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
            found.pred_classes = torch.tensor(classes, dtype=torch.int64)
            found.scores = torch.ones(len(classes))
            outputs.append({"instances": found})
        return outputs


def _oracle(dataset):
    answers = {}
    for a in _truth(dataset):
        boxes, classes = answers.setdefault(a["image_id"], ([], []))
        x, y, w, h = a["bbox"]
        boxes.append([x, y, x + w, y + h])
        classes.append([3, 7, 9].index(a["category_id"]))
    return Oracle(answers)


def test_a_detector_that_knows_scores_100_through_the_loader(dataset, tmp_path):
    cfg = make_config(DetectorSettings(image_size=64), num_classes=3)
    result = evaluate_detector(_oracle(dataset), cfg, dataset=dataset, out_dir=tmp_path / "out")
    assert result["AP"] == pytest.approx(100.0) and result["images"] == 6
    written = written_detections(tmp_path / "out")
    assert len(written) == 24 and {d["category_id"] for d in written} <= {3, 7, 9}


def test_a_blind_detector_scores_0_through_the_loader(dataset):
    cfg = make_config(DetectorSettings(image_size=64), num_classes=3)
    assert evaluate_detector(Oracle({}), cfg, dataset=dataset)["AP"] == 0.0


def test_scenes_are_drawn_three_times_as_large(dataset, tmp_path):
    cfg = make_config(DetectorSettings(image_size=64), num_classes=3)
    paths = draw_scenes(_oracle(dataset), cfg, dataset=dataset, out_dir=tmp_path / "drawn", count=2)
    assert sorted(p.name for p in paths) == [
        f"{kind}_{k}.png" for kind in ("detections", "ground_truth") for k in (0, 1)
    ]
    with Image.open(paths[0]) as image:
        assert image.size == (288, 192)
