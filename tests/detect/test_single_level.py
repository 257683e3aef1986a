"""Detectors on one level, with the classifier's next stage on each region."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from support.told import altered
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.resnet import BasicBlock, ResNet

from classify.models import arch, build, rebuild
from detect.backbone import ClassifierBackbone, stage_after
from detect.build import build_detector
from detect.cost import part_macs
from detect.detector_config import make_config
from detect.prune import backbone_groups, prune_detector
from detect.settings import DetectorSettings
from detect.single_level import masked_parts
from pruning.plan import PruningPlan
from pruning.select import Selection

SETTINGS = DetectorSettings(
    head="c4",
    strides=(16,),
    image_size=64,
    pre_nms_topk=50,
    test_proposals=10,
    train_proposals=10,
    rpn_batch_size=16,
    roi_batch_size=8,
    overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0},
)
OPTIONS = {"depth": 10, "width": 0.25}


def classifier():
    torch.manual_seed(0)
    return build("imagenet_resnet", 3, OPTIONS)


def batch():
    instances = Instances((64, 64), gt_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40]])), gt_classes=torch.tensor([1]))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [{"image": image, "instances": instances, "height": 64, "width": 64}]


def test_level_and_stage_together_are_the_classifier():
    model = classifier().eval()
    image = torch.randn(2, 3, 64, 64)
    backbone = ClassifierBackbone(model, strides=(16,), norm="FrozenBN").eval()
    stage, channels = stage_after(model, 16)
    features = stage.eval()(backbone(image)["s16"])
    assert channels == features.shape[1] == 128
    torch.testing.assert_close(model.fc(features.mean((2, 3))), model(image), rtol=1e-5, atol=1e-5)
    assert {name.split(".")[0] for name, _ in stage.named_parameters()} == {"layer4"}
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in stage.modules())
    assert sum(isinstance(layer, FrozenBatchNorm2d) for layer in stage.modules()) == 3


@pytest.mark.parametrize(
    ("model", "stride", "channels"), [(lambda: build("vgg11_slim", 3), 4, 512), (mobilenet_v2, 16, 1280)]
)
def test_other_families_have_such_a_stage(model, stride, channels):
    """A VGG's begins with the pooling; MobileNetV2's last feature is its last 1x1 convolution's."""
    stage, width = stage_after(model(), stride)
    level = ClassifierBackbone(model(), strides=(stride,)).output_shape()[f"s{stride}"].channels
    assert width == channels
    assert stage.eval()(torch.zeros(1, level, 14, 14)).shape == (1, channels, 7, 7)


def test_built_as_detectron2s_c4():
    detector, cfg = build_detector(classifier(), altered(SETTINGS, anchor_sizes=None), num_classes=3)
    assert {name: (s.channels, s.stride) for name, s in detector.backbone.output_shape().items()} == {"s16": (64, 16)}
    assert detector.backbone.size_divisibility == 16
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32.0, 64.0, 128.0, 256.0, 512.0]]
    assert detector.proposal_generator.in_features == ["s16"]
    assert detector.proposal_generator.anchor_generator.num_anchors == [15]  # five sizes, three ratios
    assert detector.roi_heads.pooler.output_size == (14, 14)
    assert detector.roi_heads.box_predictor.cls_score.weight.shape == (4, 128)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_it_trains_and_detects(norm):
    detector, _ = build_detector(classifier(), altered(SETTINGS, norm=norm), num_classes=3)
    with EventStorage(0):
        losses = detector(batch())
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    gradient = detector.roi_heads.res5.get_parameter("layer4.0.conv1.weight").grad
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        found = detector.eval()(batch())[0]["instances"]
    assert found.image_size == (64, 64) and len(found) > 0


def test_earlier_strides_count_stages_for_freezing():
    detector, _ = build_detector(classifier(), altered(SETTINGS, strides=(4, 8, 16), freeze_at=2), num_classes=3)
    trainable = {
        name.split(".")[0] for name, p in detector.backbone.bottom_up.body.named_parameters() if p.requires_grad
    }
    assert trainable == {"layer2", "layer3"}
    assert all(p.requires_grad for p in detector.roi_heads.res5.parameters())
    assert list(detector.backbone(torch.zeros(1, 3, 64, 64))) == ["s16"]


def test_macs_of_a_region_are_the_stages():
    """On 14 x 14 x 64 regions: 3x3 to 128 at 7 x 7, 3x3 of 128, 1x1 projection; then 4 scores and 12 deltas."""
    detector, _ = build_detector(classifier(), SETTINGS, num_classes=3)
    macs = part_macs(detector, image_size=(64, 64)).of(proposals=2)
    assert macs.roi_heads == 2 * (49 * (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128) + 128 * (4 + 12))
    assert macs.fpn == 0 and macs.backbone > 0


def test_a_pruned_classifier_and_pruning_inside():
    plan = PruningPlan("imagenet_resnet", OPTIONS, {"layer4.0.conv1": tuple(range(0, 128, 2))}, {"layer4.0.conv1": 128})
    small = rebuild(plan, 3)
    detector, _ = build_detector(small, SETTINGS, num_classes=3)
    assert detector.roi_heads.res5.get_parameter("layer4.0.conv1.weight").shape[0] == 64
    groups = backbone_groups(small, torch.zeros(1, 3, 64, 64), strides=(16,))
    images = torch.randn(2, 3, 64, 64)
    named = arch("imagenet_resnet", OPTIONS)
    pruned = prune_detector(detector.eval(), named, groups, "l1_filter", Selection(0.5), batch=images, seed=0)
    assert pruned.difference < 1e-4
    assert "layer4.0.conv1" not in pruned.plan.keep and len(pruned.plan.keep["layer1.0.conv1"]) == 8
    again, _ = build_detector(rebuild(plan.then(pruned.plan), 3), SETTINGS, num_classes=3)
    again.load_state_dict(pruned.detector.state_dict())
    with torch.no_grad():
        first, second = (d.eval()(batch())[0]["instances"] for d in (pruned.detector, again))
    assert torch.equal(first.pred_boxes.tensor, second.pred_boxes.tensor)


def test_both_parts_of_the_classifier_are_found_by_its_names():
    """And of an FPN, whose layers masks may cover too, its own."""
    model = classifier()
    names = {name for name, _ in model.named_parameters()} - {"fc.weight", "fc.bias"}
    detector, _ = build_detector(model, altered(SETTINGS, norm="BN"), num_classes=3)
    parts = masked_parts(detector)
    assert parts.keys() == {"body", "stage"}
    assert {name for part in parts.values() for name, _ in part.named_parameters()} == names
    pyramid, _ = build_detector(model, altered(SETTINGS, norm="BN", head="fpn", strides=(4, 8, 16, 32)), num_classes=3)
    parts = masked_parts(pyramid)
    assert parts.keys() == {"body", "fpn"}
    assert {name for name, _ in parts["body"].named_parameters()} == names
    assert "fpn_lateral2.weight" in dict(parts["fpn"].named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "c5"}, "settings.head: unknown head 'c5'; choose from fpn, cascade, mask, c4, retinanet"),
        ({"strides": (32,)}, r"no feature map of stride 64; .* the head of a single level at stride 32 is the stage"),
        ({"fpn_channels": 8}, "head: c4 has no fpn_channels; set it to null or leave it out"),
        ({"overrides": {"MODEL.MASK_ON": True}}, "head='c4' and Detectron2's keys, which ask for 'mask', differ"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_detector(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2), altered(SETTINGS, **changes), num_classes=3)


def test_the_registered_names_alone_say_what_they_need():
    with pytest.raises(ValueError, match="build_classifier_single_level_backbone needs a classifier"):
        build_model(make_config(SETTINGS, num_classes=3))
