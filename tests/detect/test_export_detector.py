"""Exported detectors find the boxes that Detectron2's finds, at any image size."""

import io

import onnxruntime
import pytest
import torch

from classify.export import export
from classify.models import build
from detect.build import build_detector
from detect.export import SIGNATURE, ImageDetector, example_image
from detect.settings import DetectorSettings

SETTINGS = DetectorSettings(
    image_size=64,
    fpn_channels=16,
    box_head_dim=32,
    pre_nms_topk=60,
    test_proposals=30,
    overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0},
)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    classifier = build("imagenet_resnet", 3, {"depth": 10, "width": 0.25})
    return build_detector(classifier, SETTINGS, num_classes=3)[0].eval()


def run(content, file_format, image):
    if file_format == "torchscript":
        return torch.jit.load(io.BytesIO(content))(image)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y.copy()) for y in session.run(["boxes", "scores", "classes"], {"image": image.numpy()})]


@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
def test_the_same_boxes_at_another_size(detector, file_format):
    content, _ = export(ImageDetector(detector), example_image((64, 96)), SIGNATURE, file_format)
    image = torch.randint(0, 256, (3, 90, 75), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = detector([{"image": image, "height": 90, "width": 75}])[0]["instances"]
    boxes, scores, classes = run(content, file_format, image)
    assert len(found) > 10
    torch.testing.assert_close(boxes, found.pred_boxes.tensor, rtol=0, atol=1e-3)  # pixels
    torch.testing.assert_close(scores, found.scores, rtol=0, atol=1e-5)
    assert torch.equal(classes, found.pred_classes)
