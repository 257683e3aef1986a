"""A detector's multiply-adds by parts, against closed forms."""

import torch
from torchvision.models.resnet import BasicBlock, ResNet

from detect.build import DetectorSettings, build_detector
from detect.cost import DetectorMacs, detector_macs, evaluation_macs, training_macs
from pruning.cost import count_macs

SETTINGS = DetectorSettings(
    num_classes=3, image_size=64, fpn_channels=8, box_head_dim=16, roi_batch_size=32, test_proposals=20
)


def _by_hand(model, proposals):
    """At 64 x 64 pixels: levels p2..p6 have 256, 64, 16, 4 and 1 positions; 3 anchors at each."""
    widths, positions = (64, 128, 256, 512), (256, 64, 16, 4)
    body = count_macs(model, torch.zeros(1, 3, 64, 64)) - 512 * 2  # without the classifier's linear layer
    fpn = sum(n * (width * 8 + 8 * 8 * 9) for width, n in zip(widths, positions, strict=True))
    rpn = (sum(positions) + 1) * (8 * 8 * 9 + 8 * 3 + 8 * 12)
    region = 8 * 7 * 7 * 16 + 16 * 16 + 16 * 4 + 16 * 12  # two linear layers, 3 classes + 1, 3 boxes
    return DetectorMacs(body, fpn, rpn, proposals * region)


def test_parts_equal_the_closed_form():
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    detector, cfg = build_detector(model, settings=SETTINGS)
    detector.train()
    found = evaluation_macs(detector, cfg, image_size=(64, 64))
    assert found == _by_hand(model, 20)
    assert found.total == found.backbone + found.fpn + found.rpn + found.roi_heads
    assert detector.training


def test_training_is_three_forward_passes_with_the_sampled_regions():
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    detector, cfg = build_detector(model, settings=SETTINGS)
    assert training_macs(detector, cfg, image_size=(64, 64)) == 3 * _by_hand(model, 32).total


def test_images_are_padded_to_the_coarsest_stride():
    detector, _ = build_detector(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2), settings=SETTINGS)
    assert detector_macs(detector, image_size=(50, 33), proposals=5) == detector_macs(
        detector, image_size=(64, 64), proposals=5
    )
