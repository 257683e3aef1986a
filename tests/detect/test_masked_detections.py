"""Whole detectors: ours carries the classifier's features, and zeroed filters detect what the smaller network does."""

import copy

import pytest
import torch
from torch import nn

from classify.models import arch, build
from detect.build import build_detector
from detect.heads import HEADS
from detect.prune import backbone_groups, prune_detector
from detect.settings import DetectorSettings
from pruning.select import Selection

OPTIONS = {"width": 0.25}
STAGES = {"s4": "layer1", "s8": "layer2", "s16": "layer3", "s32": "layer4"}


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    model = build("resnet10", 3, OPTIONS)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # away from 0 and 1, so that a wrong conversion shows
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
            nn.init.normal_(layer.running_mean, 0, 0.1)
    return model.eval()


def detector_of(classifier, norm, head="fpn"):
    given = {"image_size": 64, "norm": norm, "fpn_channels": 16}
    given |= {"box_head_dim": 32, "pre_nms_topk": 60, "test_proposals": 30}
    threshold = "ROI_HEADS" if HEADS[head].roi_heads else "RETINANET"
    settings = DetectorSettings(
        head=head,
        **{name: value for name, value in given.items() if name not in HEADS[head].idle},
        overrides={f"MODEL.{threshold}.SCORE_THRESH_TEST": 0.0},
    )
    torch.manual_seed(1)
    detector = build_detector(classifier, settings, num_classes=3)[0].eval()
    for name, layer in detector.named_modules():  # as drawn, RetinaNet's scores and the masks are nearly all alike
        if isinstance(layer, nn.Conv2d) and name.startswith(("head.", "roi_heads.mask_head.")):
            nn.init.kaiming_normal_(layer.weight)
    return detector


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_features_inside_the_detector_are_the_classifiers(classifier, norm):
    detector = detector_of(classifier, norm)
    images = detector.preprocess_image([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}]).tensor
    expected = {}
    hooks = [
        classifier.get_submodule(layer).register_forward_hook(
            lambda _, __, out, name=name: expected.update({name: out})
        )
        for name, layer in STAGES.items()
    ]
    with torch.no_grad():
        classifier(images)
        found = detector.backbone.bottom_up(images)
    for hook in hooks:
        hook.remove()
    assert found.keys() == STAGES.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "head"), [("FrozenBN", "fpn"), *(("BN", head) for head in HEADS if HEADS[head].pyramid)]
)
def test_zeroed_filters_detect_what_the_smaller_detector_does(classifier, norm, head):
    """Half of each block's first filters, with their BatchNorm's scale and shift, are set to zero by hand."""
    detector = detector_of(classifier, norm, head)
    groups = backbone_groups(classifier, torch.zeros(1, 3, 64, 64), strides=HEADS[head].strides)
    batch = torch.randn(2, 3, 64, 64)
    pruned = prune_detector(
        detector, arch("resnet10", OPTIONS), groups, "l1_filter", Selection(0.5), batch=batch, seed=0
    )
    masked = copy.deepcopy(detector)
    state = masked.state_dict()
    for name, keep in pruned.plan.keep.items():
        gone = [i for i in range(pruned.plan.widths[name]) if i not in keep]
        layer = f"backbone.bottom_up.body.{name}"
        for tensor in (
            f"{layer}.weight",
            layer.replace("conv1", "bn1") + ".weight",
            layer.replace("conv1", "bn1") + ".bias",
        ):
            state[tensor][gone] = 0
    image = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    with torch.no_grad():
        dense, zeroed, small = (
            d([{"image": image}])[0]["instances"] for d in (detector, masked, pruned.detector.eval())
        )
    assert len(small) == len(zeroed) > 10
    torch.testing.assert_close(small.pred_boxes.tensor, zeroed.pred_boxes.tensor, rtol=0, atol=1e-3)  # pixels
    torch.testing.assert_close(small.scores, zeroed.scores, rtol=0, atol=1e-5)
    assert torch.equal(small.pred_classes, zeroed.pred_classes)
    if HEADS[head].masks:
        assert small.pred_masks.any() and torch.equal(small.pred_masks, zeroed.pred_masks)
    assert len(dense) != len(small) or not torch.allclose(dense.scores, small.scores, atol=1e-4)
