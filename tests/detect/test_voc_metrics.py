"""VOC's metrics: by hand, at the ends of the scale, and equal to Detectron2's evaluator."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances
from support.voc_layout import voc_object, write_voc

from detect.data import VocDataset
from detect.evaluate import precision_recall, score_detections
from detect.voc_metrics import ap_11_points, ap_continuous, overlaps

CLASSES = ("bird", "cat", "dog")


@pytest.fixture
def dataset(tmp_path):
    """Twelve images with up to five boxes of three classes; every fourth box is difficult."""
    rng = np.random.default_rng(0)
    images = {}
    for i in range(12):
        objects = []
        for _ in range(int(rng.integers(0, 6)) if i else 5):
            x, y, w, h = rng.integers((1, 1, 8, 8), (50, 30, 46, 34)).tolist()
            corners = (x, y, x + w, y + h)
            objects.append(voc_object(rng.choice(CLASSES), corners, difficult=int(rng.random() < 0.25)))
        images[f"{i:06d}"] = objects
    return VocDataset(write_voc(tmp_path, images), "test")


def _instances(split, rng):
    """Detections of each image: three shifted copies of every box, some of another class, scores with ties."""
    for image in split.images:
        boxes = np.array([b.xywh for b in image.boxes for _ in range(3)], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 3, boxes.shape).astype(np.float32)
        labels = np.array([b.label for b in image.boxes for _ in range(3)], dtype=np.int64)
        labels = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(0, 3, len(labels)))
        found = Instances((image.height, image.width))
        found.pred_boxes, found.pred_classes = Boxes(torch.from_numpy(boxes)), torch.from_numpy(labels)
        found.scores = torch.from_numpy(rng.integers(1, 60, len(labels)) / 60)
        yield image, found


def _theirs(dataset, found, year, name):
    split = dataset.split
    MetadataCatalog.get(name).set(
        thing_classes=list(split.classes), dirname=str(dataset.root), year=year, split=dataset.image_set
    )
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for image, instances in found:
        evaluator.process([{"image_id": image.id}], [{"instances": instances}])
    MetadataCatalog.pop(name)
    return evaluator.evaluate()["bbox"]["AP50"]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_detectron2(dataset, seed):
    found = list(_instances(dataset.split, np.random.default_rng(seed)))
    detections = [d for image, instances in found for d in instances_to_coco_json(instances, image.id)]
    for detection in detections:
        detection["category_id"] = dataset.split.category_ids[detection["category_id"]]
    ours = score_detections(dataset, detections)
    theirs = [_theirs(dataset, found, year, f"voc_equality_{year}_{seed}") for year in (2007, 2012)]
    assert [ours["VOC_AP50_07"], ours["VOC_AP50"]] == pytest.approx(theirs, rel=1e-12)
    assert 5 < theirs[0] < 95 and theirs[0] != theirs[1]


def _as_detections(split, keep=lambda box: True, score=1.0):
    return [
        {"image_id": i.id, "category_id": split.category_ids[b.label], "bbox": list(b.xywh), "score": score}
        for i in split.images
        for b in i.boxes
        if keep(b)
    ]


def test_the_truth_scores_100_with_or_without_its_difficult_boxes(dataset):
    assert any(box.difficult for box in dataset.split.boxes())
    for keep in (lambda box: True, lambda box: not box.difficult):
        result = score_detections(dataset, _as_detections(dataset.split, keep))
        assert [result[k] for k in ("AP", "AP50", "AP75")] == [100.0] * 3
        assert [result["VOC_AP50_07"], result["VOC_AP50"]] == [100.0] * 2
        assert result["boxes"] == sum(not box.difficult for box in dataset.split.boxes())
    assert "VOC_AP50_07 at 11 points" in result["metric"]


def test_no_detection_scores_0(dataset):
    result = score_detections(dataset, [])
    assert [result[k] for k in ("AP", "AP50", "VOC_AP50_07", "VOC_AP50")] == [0.0] * 4
    assert set(result["voc_per_class"]["VOC_AP50"]) == set(CLASSES)
    curves = precision_recall(dataset, [])["classes"]
    assert all(set(curve["precision"]) == {0.0} for curve in curves.values())


def test_average_precision_by_hand():
    # four boxes; right, wrong, right: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])
    # recalls 0, 0.1, 0.2 see 1; 0.3, 0.4, 0.5 see 2/3; the other five see nothing
    assert ap_11_points(recall, precision) == pytest.approx((3 + 3 * 2 / 3) / 11)
    assert ap_continuous(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


def test_overlap_counts_pixels():
    # pixels 1..10 and 6..15 of one row: 5 of 15
    assert overlaps(np.array([[1.0, 1, 10, 1]]), np.array([[6.0, 1, 15, 1]])) == pytest.approx(1 / 3)


def test_difficult_doubled_and_missed_boxes_by_hand(tmp_path):
    first, second, hard = (1, 1, 20, 20), (41, 1, 60, 20), (1, 41, 20, 60)
    objects = [voc_object("cat", first), voc_object("cat", second), voc_object("cat", hard, difficult=1)]
    dataset = VocDataset(write_voc(tmp_path, {"a": objects, "b": [voc_object("dog", first)]}), "test")

    def found(corners, score, image="a"):
        x, y, right, bottom = corners
        box = [x - 1, y - 1, right - x + 1, bottom - y + 1]
        return {"image_id": image, "category_id": 1, "bbox": box, "score": score}

    # right, on a difficult box (ignored), the same box again (wrong), another image (wrong): recall 1/2 at precision 1
    detections = [found(first, 0.9), found(hard, 0.8), found(first, 0.7), found(first, 0.6, "b")]
    result = score_detections(dataset, detections)
    assert result["voc_per_class"]["VOC_AP50"] == pytest.approx({"cat": 50.0, "dog": 0.0})
    assert result["voc_per_class"]["VOC_AP50_07"] == pytest.approx({"cat": 600 / 11, "dog": 0.0})
    assert result["VOC_AP50"] == pytest.approx(25.0)
    cat = precision_recall(dataset, detections)["classes"]["cat"]
    assert cat["precision"][:51] == pytest.approx([1.0] * 51) and cat["precision"][51:] == [0.0] * 50
    assert cat["score"][50] == pytest.approx(0.9)
