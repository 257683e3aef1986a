"""Mask R-CNN's masks: read as polygons or run lengths, cropped with their image, measured, counted."""

import json

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from pycocotools import mask
from support.by_pycocotools import by_pycocotools
from support.coco_layout import coco_box, encoded, picture, write_coco
from support.tiny_detector import make_detector, two_squares
from torch import nn

from classify.export import FORMATS, export, read_exported
from detect.coco_evaluation import coco_evaluation
from detect.cost import detector_activations, part_macs
from detect.data import CocoDataset
from detect.data.loader import train_loader
from detect.data.outlines import read_outlines
from detect.detector_config import make_config
from detect.export import DetectionComparison, ImageDetector, example_image, other_images
from detect.exported import ExportedDetector
from detect.mask_metrics import MASK_METRICS, mask_metrics
from detect.settings import DetectorSettings

pytestmark = pytest.mark.slow

TRIANGLE = [4.0, 4.0, 16.0, 4.0, 4.0, 16.0]


def drawn(outline, size=(20, 40)):
    """The mask of an outline, as pycocotools draws it."""
    runs = outline if isinstance(outline, dict) else mask.frPyObjects([list(outline[0])], *size)[0]
    return mask.decode(runs)


def run_lengths(pixels):
    """COCO's uncompressed counts: runs of 0 and 1 in turn, down the columns."""
    counts, value = [0], 0
    for pixel in pixels.flatten(order="F"):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def dataset(folder, *segmentations, **more):
    boxes = [coco_box(k, 1, [4, 4, 12, 12], segmentation=one, **more) for k, one in enumerate(segmentations, 1)]
    return write_coco(folder, {"a.png": encoded(picture(), "PNG")}, boxes)


def masks_of(batch):
    return [record["instances"].gt_masks for record in batch]


def test_polygons_and_both_kinds_of_run_lengths_are_one_mask(tmp_path):
    pixels = drawn([TRIANGLE])
    packed = mask.encode(np.asfortranarray(pixels))
    kinds = (
        [TRIANGLE, [1, 1, 2, 2]],  # two points are no polygon, as Detectron2 has it
        {"size": [20, 40], "counts": run_lengths(pixels)},
        {"size": [20, 40], "counts": packed["counts"].decode()},
    )
    found = read_outlines(dataset(tmp_path, *kinds).split)
    assert list(found) == [0, 1, 2] and pixels.sum() > 50
    assert all(np.array_equal(drawn(outline), pixels) for outline in found.values())
    as_runs = read_outlines(dataset(tmp_path, *kinds).split, encoded=True)
    assert all(isinstance(outline, dict) and np.array_equal(drawn(outline), pixels) for outline in as_runs.values())


def test_compressed_run_lengths_are_read_as_pycocotools_does(tmp_path):
    """Of masks of noise, whose runs are short and long, and of the whole image."""
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 40)) < share for share in (0.5, 0.01, 0.99, 0.001)] + [np.ones((20, 40), dtype=bool)]
    masks.append(np.kron(rng.random((2, 2)) < 0.5, np.ones((10, 20), dtype=bool)))
    packed = [mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode() for pixels in masks]
    found = read_outlines(dataset(tmp_path, *({"size": [20, 40], "counts": counts} for counts in packed)).split)
    assert all(np.array_equal(drawn(found[k]), pixels) for k, pixels in enumerate(masks))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, r"2 of 3 objects have no outline of which a mask .* such as annotation 2: segmentation None has no pol"),
        ([], r"such as annotation 2: segmentation \[\] has no polygon"),
        ([[1, 1, 2, 2]], "has no polygon"),
        ([[1, 1, 2, "x", 3, 3]], "has no polygon"),
        ({"size": [40, 20], "counts": [800]}, r"segmentation of size \[40, 20\], the image is of \[20, 40\]"),
        ({"size": [20, 40], "counts": [799]}, r"segmentation counts \[799\] are no run-length encoding of the image"),
        ({"size": [20, 40], "counts": None}, "counts None are no run-length"),
        ({"size": [20, 40], "counts": "0"}, "counts '0' are no run-length"),  # of which pycocotools makes chance values
        ({"size": [20, 40], "counts": "zz"}, "counts 'zz' are no run-length"),
        ({"size": [20, 40], "counts": "P"}, "counts 'P' are no run-length"),
        ({"size": [20, 40], "counts": "!"}, "counts '!' are no run-length"),
    ],
)
def test_objects_without_an_outline_are_refused(tmp_path, segmentation, message):
    data = dataset(tmp_path, [TRIANGLE], segmentation, segmentation)
    with pytest.raises(ValueError, match=message):
        read_outlines(data.split)


def test_a_crowd_needs_none_to_train_and_other_formats_have_none(tmp_path):
    assert read_outlines(dataset(tmp_path, None, iscrowd=1).split) == {}
    split = dataset(tmp_path, [TRIANGLE]).split
    anonymous = type(split.images[0].boxes[0])((4, 4, 12, 12), 0, 9.0)  # as of a VOC or YOLO file
    image = type(split.images[0])(1, split.images[0].file, 20, 40, (anonymous,))
    with pytest.raises(ValueError, match=r"all\.json: it has no outlines of objects, of which masks are learned"):
        read_outlines(type(split)(split.source, split.classes, split.category_ids, type(split.images).of([image]), ()))


def config(**overrides):
    keys = {f"INPUT.{name}": value for name, value in overrides.items()}
    return make_config(DetectorSettings(head="mask", image_size=64, overrides=keys), num_classes=2)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("form", ["polygon", "runs"])
def test_a_mask_follows_its_image(tmp_path, form, crop):
    """Of a square the mask is the box, wherever a flip and a crop put both, and its pixels are the white ones."""
    data = two_squares(tmp_path)
    if form == "runs":
        coco = json.loads(data.annotations.read_text())
        for one in coco["annotations"]:
            x, y, width, height = one["bbox"]
            pixels = np.zeros((64, 64), dtype=np.uint8)
            pixels[y : y + height, x : x + width] = 1
            one["segmentation"] = {"size": [64, 64], "counts": run_lengths(pixels)}
        data.annotations.write_text(json.dumps(coco))
        data = CocoDataset(data.annotations, tmp_path)
    keys = {"CROP.ENABLED": True, "CROP.TYPE": "relative", "CROP.SIZE": [0.9, 0.9]} if crop else {}
    cfg = config(RANDOM_FLIP="horizontal", **keys)
    batch = next(iter(train_loader(data, cfg, batch_size=8, seed=0)))
    kinds = {type(found).__name__ for found in masks_of(batch)}
    assert kinds == {"PolygonMasks" if form == "polygon" and not crop else "BitMasks"}
    for record in batch:
        boxes = record["instances"].gt_boxes.tensor
        assert len(boxes) == 2
        around = record["instances"].gt_masks.get_bounding_boxes().tensor
        torch.testing.assert_close(around, boxes, rtol=0, atol=1.0)  # pixels
        if kinds == {"BitMasks"}:
            white = record["image"][0] > 127
            assert ((record["instances"].gt_masks.tensor.any(0) != white).sum() / white.sum()) < 0.1


@pytest.mark.parametrize("keeps", [True, False])
def test_boxes_are_the_annotated_ones_whether_pictures_are_kept_or_not(tmp_path, monkeypatch, keeps):
    """A large data set's are not; Detectron2 takes boxes from masks behind a crop alone."""
    monkeypatch.setattr("detect.data.loader._worth_keeping", lambda dataset, cfg: keeps)
    data = dataset(tmp_path, [[6.0, 6.0, 10.0, 6.0, 6.0, 10.0]])  # within a box of 4, 4 to 16, 16
    (record,) = next(iter(train_loader(data, config(), batch_size=1, seed=0)))
    scale = record["image"].shape[1] / 20
    assert record["instances"].gt_boxes.tensor.tolist() == [
        pytest.approx([4 * scale, 4 * scale, 16 * scale, 16 * scale])
    ]


def test_images_without_objects_are_cropped_and_trained_on(tmp_path):
    boxes = [coco_box(1, 1, [4, 4, 12, 12], segmentation=[TRIANGLE])]
    files = {name: encoded(picture(k), "PNG") for k, name in enumerate(("a.png", "b.png"))}
    data = write_coco(tmp_path, files, boxes)
    keys = {"INPUT.CROP.ENABLED": True, "INPUT.CROP.TYPE": "relative", "INPUT.CROP.SIZE": [0.9, 0.9]}
    keys |= {"DATALOADER.FILTER_EMPTY_ANNOTATIONS": False}
    detector, cfg = make_detector(head="mask", overrides=keys)
    batch = next(iter(train_loader(data, cfg, batch_size=2, seed=0)))
    assert sorted(len(record["instances"]) for record in batch) == [0, 1]
    with torch.no_grad(), EventStorage():
        losses = detector.train()(batch)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values()) and "loss_mask" in losses


def test_mask_ap_is_pycocotools(tmp_path):
    """On masks that are shifted by up to six pixels, of random scores."""
    data = two_squares(tmp_path)
    rng = np.random.default_rng(0)
    detections = []
    for one in json.loads(data.annotations.read_text())["annotations"]:
        x, y, side, _ = one["bbox"]
        pixels = np.zeros((64, 64), dtype=np.uint8, order="F")
        x += int(rng.integers(7))
        pixels[y : y + side, x : x + side] = 1
        runs = mask.encode(pixels)
        found = {"segmentation": runs | {"counts": runs["counts"].decode()}, "bbox": [0.0, 0.0, 64.0, 64.0]}
        place = {"image_id": one["image_id"], "category_id": one["category_id"]}
        detections.append({**found, **place, "score": float(rng.random())})
    found = mask_metrics(data.split, detections)
    outlines = read_outlines(data.split, encoded=True)
    reference = by_pycocotools(data.split, detections, "segm", outlines)
    ours = coco_evaluation(data.split, detections, "segm", outlines)
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[key], reference.eval[key])
    assert [found[name] for name in MASK_METRICS] == [100 * value for value in reference.stats[:3]]
    assert 5 < found["mask_AP"] < found["mask_AP50"] < 100
    assert [mask_metrics(data.split, [])[name] for name in MASK_METRICS] == [0.0, 0.0, 0.0]


def test_a_test_split_without_outlines_is_said_to_have_no_mask_ap(tmp_path):
    found = mask_metrics(dataset(tmp_path, None).split, [])
    assert found.keys() == {"mask_metric"} and "mask AP not measured: " in found["mask_metric"]


def test_macs_and_activations_of_masks_equal_the_closed_form():
    """Four convolutions of 4 channels on 14 x 14, one to 28 x 28, and a mask of each of the 2 classes."""
    keys = {"MODEL.ROI_MASK_HEAD.CONV_DIM": 4, "TEST.DETECTIONS_PER_IMAGE": 7}
    (boxes, cfg), (masks, _) = (make_detector(**more) for more in ({}, {"head": "mask", "overrides": keys}))
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    size = {"image_size": (64, 64)}
    place = 14 * 14
    one = place * (8 * 4 * 9 + 3 * 4 * 4 * 9 + 4 * 4 * 4) + 4 * place * 4 * 2
    without, found = (part_macs(detector, **size).evaluation(cfg) for detector in (boxes, masks))
    assert found.roi_heads - without.roi_heads == 7 * one
    assert (found.backbone, found.fpn, found.rpn) == (without.backbone, without.fpn, without.rpn)
    regions = int(16 * 0.25)  # of roi_batch_size those that may be objects
    assert part_macs(masks, **size).training(cfg) - part_macs(boxes, **size).training(cfg) == 3 * regions * one
    written = place * 4 * 4 + 4 * place * (4 + 2)
    assert detector_activations(masks, **size) - detector_activations(boxes, **size) == 7 * written


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_exported_file_says_the_masks_too(file_format, tmp_path):
    """On images of other sizes than the traced one, pasted into the picture as Detectron2 does."""
    detector, _ = make_detector(head="mask", overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
    nn.init.normal_(detector.roi_heads.mask_head.predictor.weight)  # as drawn all are nearly alike
    model, compare = ImageDetector(detector), DetectionComparison()
    images = [example_image((64, 64)), *other_images((64, 64))]
    content, difference = export(model, images[0], model.signature, file_format, others=images[1:], compare=compare)
    assert difference < 1e-3 and compare.detections > 20
    (tmp_path / "net").write_bytes(content)
    file = ExportedDetector(read_exported(tmp_path / "net", file_format))
    record = {"image": images[1], "height": 100, "width": 70}
    with torch.no_grad():
        expected, found = (one([record])[0]["instances"] for one in (detector.eval(), file))
    assert found.pred_masks.shape == (len(found), 100, 70)
    assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-3 < expected.pred_masks.float().mean()


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_exported_file_finds_nothing_too(file_format, tmp_path):
    detector, _ = make_detector(head="mask", overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.99})
    model, image = ImageDetector(detector), example_image((64, 64))
    (tmp_path / "net").write_bytes(export(model, image, model.signature, file_format, compare=DetectionComparison())[0])
    boxes, scores, classes, masks = read_exported(tmp_path / "net", file_format)(example_image((50, 90)))
    assert len(boxes) == len(scores) == len(classes) == 0 and masks.shape == (0, 28, 28)


def test_masks_that_differ_are_no_same_detections():
    boxes, scores, classes = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0.9]), torch.tensor([1])
    masks = torch.zeros(1, 28, 28)
    compare = DetectionComparison()
    assert compare((boxes, scores, classes, masks), (boxes, scores, classes, masks + 0.005)) == 0
    assert compare.detections == 1
    many = [t.repeat(20, *[1] * (t.dim() - 1)) for t in (boxes, scores, classes, masks)]
    with pytest.raises(ValueError, match="finds 20 objects, 0 of them among the 20"):
        compare(many, [*many[:3], many[3] + 0.1])
