"""Exported detectors on images unlike the traced one: other numbers of proposals, none, no detections, other sizes."""

import io

import onnxruntime
import pytest
import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from support.told import altered
from torch import nn

from classify.export import export
from classify.models import build
from detect.build import build_detector
from detect.export import (
    SIGNATURE,
    DetectionComparison,
    ImageDetector,
    every_score,
    example_image,
    number_of_classes,
    other_images,
)
from detect.settings import DetectorSettings

FORMATS = ("torchscript", "onnx")
ALL_SCORES = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
FPN = DetectorSettings(
    image_size=64,
    fpn_channels=16,
    box_head_dim=32,
    pre_nms_topk=60,
    test_proposals=30,
    overrides=ALL_SCORES,
)
C4 = DetectorSettings(head="c4", image_size=64, strides=(16,), pre_nms_topk=60, test_proposals=30, overrides=ALL_SCORES)
IMAGES = {
    "another size": example_image((90, 75)),
    "larger": example_image((200, 160)),
    "blank": torch.zeros(3, 64, 96, dtype=torch.uint8),
    "few proposals": example_image((20, 20)),
    "one pixel": example_image((1, 1)),
}


of_both_kinds = pytest.mark.parametrize(
    ("settings", "file_format"),
    [
        pytest.param(FPN, "onnx", id="fpn-onnx"),
        pytest.param(C4, "torchscript", id="c4-torchscript"),
        pytest.param(FPN, "torchscript", id="fpn-torchscript", marks=pytest.mark.slow),
        pytest.param(C4, "onnx", id="c4-onnx", marks=pytest.mark.slow),
    ],
)


def detector_of(settings):
    torch.manual_seed(0)
    return build_detector(build("imagenet_resnet", 3, {"depth": 10, "width": 0.25}), settings, num_classes=3)[0].eval()


def exported(detector, file_format):
    """The exported network as a function of an image, checked as the tool checks it."""
    size = (64, 96)
    content, _ = export(
        ImageDetector(detector),
        example_image(size),
        SIGNATURE,
        file_format,
        others=other_images(size),
        compare=DetectionComparison(),
    )
    if file_format == "torchscript":
        return torch.jit.load(io.BytesIO(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = list(SIGNATURE.outputs)
    return lambda image: [torch.from_numpy(y.copy()) for y in session.run(names, {"image": image.numpy()})]


def proposals(detector, image):
    images = detector.preprocess_image([{"image": image}])
    with torch.no_grad():
        return len(detector.proposal_generator(images, detector.backbone(images.tensor))[0][0])


def found_by(detector, image):
    with torch.no_grad():
        return detector([{"image": image}])[0]["instances"]


@of_both_kinds
def test_any_number_of_proposals(settings, file_format):
    detector = detector_of(settings)
    run = exported(detector, file_format)
    counts = {proposals(detector, image) for image in IMAGES.values()}
    assert len(counts) > 2 and min(counts) < proposals(detector, example_image((64, 96)))
    for name, image in IMAGES.items():
        found = found_by(detector, image)
        boxes, scores, classes = run(image)
        assert len(found) == len(boxes) > 0, name
        torch.testing.assert_close(scores, found.scores, rtol=0, atol=1e-5)
        comparison = DetectionComparison()
        comparison((found.pred_boxes.tensor, found.scores, found.pred_classes), (boxes, scores, classes))
        assert comparison.detections >= len(found) - 1, name  # of equal scores one may suppress the other


@of_both_kinds
def test_no_proposal_and_no_detection(settings, file_format):
    """No proposal: none of a small image is as large as Detectron2 is told that it must be."""
    least = {"MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 40}
    detector = detector_of(altered(settings, overrides=ALL_SCORES | least))
    assert proposals(detector, example_image((64, 96))) > 0
    run, image = exported(detector, file_format), example_image((30, 30))
    assert proposals(detector, image) == 0
    boxes, scores, classes = run(image)
    assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,)
    assert len(run(example_image((64, 96)))[0]) == len(found_by(detector, example_image((64, 96)))) > 0
    strict = detector_of(altered(settings, overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.9}))
    boxes, scores, _ = exported(strict, file_format)(example_image((90, 75)))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_cascade(file_format):
    overrides = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
    detector = detector_of(altered(FPN, overrides=ALL_SCORES | overrides))
    run = exported(detector, file_format)
    for image in IMAGES.values():
        torch.testing.assert_close(run(image)[1], found_by(detector, image).scores, rtol=0, atol=1e-5)
    assert number_of_classes(detector.state_dict()) == 3


def retinanet():
    """Around our FPN, with scores that differ: as drawn all are nearly alike."""
    torch.manual_seed(0)
    backbone = detector_of(FPN).backbone
    shapes = list(backbone.output_shape().values())
    anchors = DefaultAnchorGenerator(
        sizes=[[8.0 * 2**k] for k in range(2, 7)], aspect_ratios=[[0.5, 1, 2]], strides=[s.stride for s in shapes]
    )
    head = RetinaNetHead(input_shape=shapes, num_classes=5, num_anchors=3, conv_dims=[16])
    nn.init.normal_(head.cls_score.weight, 0, 0.5)
    return RetinaNet(
        backbone=backbone,
        head=head,
        head_in_features=list(backbone.output_shape()),
        anchor_generator=anchors,
        box2box_transform=Box2BoxTransform(weights=(1, 1, 1, 1)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], True),
        num_classes=5,
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(255.0, 255.0, 255.0),
    ).eval()


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_dense_detector(file_format):
    detector = retinanet()
    run = exported(detector, file_format)
    counts = []
    for image in IMAGES.values():
        found = found_by(detector, image)
        counts.append(len(found))
        torch.testing.assert_close(run(image)[1], found.scores, rtol=0, atol=1e-4)
    assert 0 in counts and max(counts) > 20
    assert number_of_classes(detector.state_dict()) == 5


class Counting(ImageDetector):
    """An export that takes the number of detections on its example for the most there can be."""

    def forward(self, image):
        found = self.detector.inference([{"image": image}], do_postprocess=False)[0]
        boxes = found.pred_boxes.tensor[: int(len(found) // 2)] if torch.jit.is_tracing() else found.pred_boxes.tensor
        kept = len(boxes)
        return boxes, found.scores[:kept], found.pred_classes[:kept]


class Splitting(ImageDetector):
    """Splits by image as Detectron2 does, so that a trace keeps the number of proposals."""

    def forward(self, image):
        found = self.detector.inference([{"image": image}], do_postprocess=False)[0]
        return found.pred_boxes.tensor, found.scores, found.pred_classes


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(("wrong", "message"), [(Counting, "the exported network finds"), (Splitting, "an input of")])
def test_a_wrong_export_is_found_out(wrong, message, file_format):
    size = (64, 96)
    arguments = (wrong(detector_of(C4)), example_image(size), SIGNATURE, file_format)
    with pytest.raises(ValueError, match=rf"{wrong.__name__} cannot be exported as {file_format}.*{message}") as caught:
        export(*arguments, others=other_images(size), compare=DetectionComparison())
    assert "\n" not in str(caught.value)


def test_every_score_passes_for_a_while():
    for detector in (detector_of(altered(FPN, overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.9})), retinanet()):
        image = example_image((64, 64)) // 32 + 112
        before = len(found_by(detector, image))
        with every_score(detector):
            assert len(found_by(detector, image)) > max(before, 20)
        assert len(found_by(detector, image)) == before


def detections(*scores):
    n = len(scores)
    return torch.arange(4.0 * n).view(n, 4), torch.tensor(scores), torch.zeros(n, dtype=torch.int64)


def test_what_counts_as_the_same_detections():
    compare = DetectionComparison()
    assert compare(detections(0.9, 0.5), detections(0.9, 0.5)) == 0.0
    assert compare(detections(), detections()) == 0.0
    assert compare.detections == 2
    many = [i / 100 for i in range(100, 80, -1)]
    assert compare(detections(*many), detections(*many[:-1])) == 0.0  # one of twenty
    boxes, scores, classes = detections(0.9, 0.8, 0.5)
    for other in ((boxes + 1, scores, classes), (boxes, scores - 0.01, classes), (boxes, scores, classes + 1)):
        with pytest.raises(ValueError, match="finds 3 objects, 0 of them among the 3 that PyTorch finds"):
            compare((boxes, scores, classes), other)
    with pytest.raises(ValueError, match=r"of shapes \(3, 4\), \(2,\), \(3,\)"):
        compare((boxes, scores, classes), (boxes, scores[:2], classes))


def test_a_meta_architecture_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="a detector of kind Linear cannot be exported; those of GeneralizedRCNN, De"):
        ImageDetector(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="of no Faster R-CNN and no RetinaNet"):
        number_of_classes({"head.weight": torch.zeros(1)})
