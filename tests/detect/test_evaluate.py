"""faster-coco-eval gives pycocotools' numbers; the ends of the scale are exact."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.written_detections import written_detections
from torch import nn

from detect.data import CocoDataset
from detect.detector_config import make_config
from detect.evaluate import METRICS, evaluate_detector, score_detections
from detect.pictures import draw_scenes
from detect.settings import DetectorSettings


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
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(dataset.annotations))
        reference = COCOeval(truth, truth.loadRes(detections), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    ours = score_detections(dataset, detections)
    expected = [None if v < 0 else 100 * float(v) for v in reference.stats[:6]]
    assert [ours[name] for name in METRICS] == expected
    assert 5 < ours["AP"] < 95
    by_class = reference.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    assert list(ours["per_class"]) == ["three", "seven", "nine"]
    np.testing.assert_allclose(list(ours["per_class"].values()), 100 * by_class, rtol=1e-12)


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
