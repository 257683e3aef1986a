"""A detector's multiply-adds by parts, against closed forms."""

import torch
from support.told import altered
from torchvision.models.resnet import BasicBlock, ResNet

from detect.build import build_detector
from detect.cost import DetectorMacs, detector_activations, detector_params, part_macs
from detect.settings import DetectorSettings
from pruning.cost import count_activations, count_macs, count_params

SETTINGS = DetectorSettings(image_size=64, fpn_channels=8, box_head_dim=16, roi_batch_size=32, test_proposals=20)


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
    detector, cfg = build_detector(model, SETTINGS, num_classes=3)
    detector.train()
    found = part_macs(detector, image_size=(64, 64)).evaluation(cfg)
    assert found == _by_hand(model, 20)
    assert found.total == found.backbone + found.fpn + found.rpn + found.roi_heads
    assert detector.training


def test_activations_equal_the_closed_form():
    """At 64 x 64 pixels, per position: FPN 8 + 8, RPN 8 + 3 + 12; per region 16, 16, 4 and 12."""
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    detector, _ = build_detector(model, SETTINGS, num_classes=3)
    body = count_activations(model, torch.zeros(1, 3, 64, 64)) - 2  # without the classifier's linear layer
    positions = 256 + 64 + 16 + 4
    by_hand = body + positions * 16 + (positions + 1) * 23 + 20 * 48
    assert detector_activations(detector, image_size=(64, 64)) == by_hand
    assert detector_activations(detector, image_size=(50, 33)) == by_hand  # padded


def test_training_is_three_forward_passes_with_the_sampled_regions():
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)
    detector, cfg = build_detector(model, SETTINGS, num_classes=3)
    assert part_macs(detector, image_size=(64, 64)).training(cfg) == 3 * _by_hand(model, 32).total


def test_images_are_padded_to_the_coarsest_stride():
    detector, _ = build_detector(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2), SETTINGS, num_classes=3)
    assert part_macs(detector, image_size=(50, 33)).of(proposals=5) == part_macs(detector, image_size=(64, 64)).of(
        proposals=5
    )


def keeping(shape, kept):
    """A mask of this shape that leaves the first `kept` weights."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[:kept] = True
    return mask


def test_removed_weights_of_body_and_pyramid_count_no_more():
    """At 64 x 64 pixels the stem answers at 1,024 places, layer 4 at 4, level p2 at 256."""
    detector, cfg = build_detector(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2), SETTINGS, num_classes=3)
    masks = {
        "conv1.weight": keeping((64, 3, 7, 7), 64 * 3 * 49 - 10),
        "layer4.0.conv2.weight": keeping((512, 512, 3, 3), 1),
        "fpn_output2.weight": keeping((8, 8, 3, 3), 500),  # of 576
        "fc.weight": keeping((2, 512), 1),  # of the classifier, and not in the detector
    }
    dense = part_macs(detector, image_size=(64, 64)).evaluation(cfg)
    left = part_macs(detector, image_size=(64, 64), masks=masks).evaluation(cfg)
    assert dense.backbone - left.backbone == 10 * 1024 + (512 * 512 * 9 - 1) * 4
    assert dense.fpn - left.fpn == 76 * 256
    assert (left.rpn, left.roi_heads) == (dense.rpn, dense.roi_heads)
    forward = part_macs(detector, image_size=(64, 64)).training(cfg) // 3
    trained = part_macs(detector, image_size=(64, 64), masks=masks).training(cfg)
    assert trained == 3 * (forward - (dense.total - left.total))
    body, whole = detector_params(detector, masks)
    assert count_params(detector.backbone.bottom_up) - body == 10 + 512 * 512 * 9 - 1
    assert count_params(detector) - whole == 10 + 512 * 512 * 9 - 1 + 76


def test_removed_weights_of_a_stage_on_regions_count_once_a_region():
    """A region of 14 x 14 leaves layer 4 as 7 x 7."""
    settings = altered(SETTINGS, head="c4", strides=(16,), fpn_channels=None, box_head_dim=None)
    detector, _ = build_detector(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2), settings, num_classes=3)
    masks = {"layer4.0.conv2.weight": keeping((512, 512, 3, 3), 512 * 512 * 9 - 3)}
    dense, left = (part_macs(detector, image_size=(64, 64), masks=given).of(proposals=5) for given in (None, masks))
    assert dense.roi_heads - left.roi_heads == 3 * 49 * 5
    assert (left.backbone, left.fpn, left.rpn) == (dense.backbone, 0, dense.rpn)
    assert detector_params(detector, masks)[1] == count_params(detector) - 3
