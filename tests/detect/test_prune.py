"""Pruning inside a detector: masked equals smaller, widths of the features stay, the plan is the classifier's."""

from dataclasses import replace

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from classify.models import arch, build, rebuild
from detect.backbone import load_classifier
from detect.build import DetectorSettings, build_detector
from detect.prune import backbone_groups, detection_loss, prune_detector
from pruning.cost import count_macs
from pruning.methods import METHODS
from pruning.plan import PruningPlan
from pruning.select import Selection

OPTIONS = {"width": 0.25}
SETTINGS = DetectorSettings(num_classes=2, image_size=64, max_image_size=64, fpn_channels=16, box_head_dim=32)


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    classifier = build("resnet10", 3, OPTIONS)
    for module in classifier.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1)
    groups = backbone_groups(classifier, torch.zeros(1, 3, 64, 64), strides=(4, 8, 16, 32), stages=("layer1",))
    return classifier, groups, build_detector(classifier, settings=SETTINGS)[0]


def prune(dense, selection, method="l1_filter", **arguments):
    _, groups, detector = dense
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return prune_detector(
        detector, arch("resnet10", OPTIONS), groups, method, selection, batch=batch, seed=0, **arguments
    )


def test_only_groups_that_no_feature_hands_on_are_offered(dense):
    assert [g.name for g in dense[1]] == [f"layer{i}.0.conv1" for i in (1, 2, 3, 4)]
    assert [g.width for g in dense[1]] == [16, 32, 64, 128]


@pytest.mark.parametrize("method", ["l1_filter", "random"])
def test_half_of_the_inner_filters_go_and_the_features_keep_their_widths(dense, method):
    before = {n: t.clone() for n, t in dense[2].state_dict().items()}
    pruned = prune(dense, Selection(0.5), method)
    assert pruned.plan.kept_counts() == {f"layer{i}.0.conv1": n for i, n in ((1, 8), (2, 16), (3, 32), (4, 64))}
    assert pruned.difference < 1e-5
    shapes = {n: s.channels for n, s in pruned.detector.backbone.bottom_up.output_shape().items()}
    assert shapes == {"s4": 16, "s8": 32, "s16": 64, "s32": 128}
    image = torch.zeros(1, 3, 64, 64)
    body, small = dense[2].backbone.bottom_up.body, pruned.detector.backbone.bottom_up.body
    assert count_macs(small, image) < count_macs(body, image)
    for name, tensor in dense[2].state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_detector_is_rebuilt_from_its_plan_and_loads_strictly(dense):
    pruned = prune(dense, Selection(0.5))
    plan = PruningPlan.from_json(pruned.plan.to_json())
    again, _ = build_detector(rebuild(plan, 3), settings=SETTINGS)
    again.load_state_dict(pruned.detector.state_dict())
    image = [{"image": torch.randint(256, (3, 64, 64)).float()}]
    one, two = pruned.detector.eval()(image)[0]["instances"], again.eval()(image)[0]["instances"]
    assert torch.equal(one.pred_boxes.tensor, two.pred_boxes.tensor)


def test_a_pruned_classifier_becomes_a_backbone_and_must_be_complete(dense):
    plan = prune(dense, Selection(0.5)).plan
    classifier = rebuild(plan, 3)
    detector, _ = build_detector(classifier, settings=SETTINGS)
    state = classifier.state_dict()
    load_classifier(detector.backbone.bottom_up, state)
    state.pop("layer2.0.conv1.weight")
    with pytest.raises(ValueError, match=r"missing from the classifier's weights: layer2\.0\.conv1\.weight"):
        load_classifier(detector.backbone.bottom_up, state)


def test_what_cannot_be_done_inside_a_detector_says_so(dense):
    with pytest.raises(ValueError, match="leaves no channel of 16"):
        prune(dense, Selection(0.97))
    with pytest.raises(ValueError, match="no layer matches 'layer9"):
        prune(dense, Selection(0.5, skip=("layer9.*",)))
    with pytest.raises(ValueError, match="removes single weights"):
        prune(dense, Selection(0.5), "magnitude")


def calibration_batches():
    instances = Instances((64, 64))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[8.0, 8, 40, 40]])), torch.tensor([1])
    generator = torch.Generator().manual_seed(0)
    return [
        [{"image": torch.randint(256, (3, 64, 64), generator=generator).float(), "instances": instances}]
        for _ in range(2)
    ]


REFUSED = {
    "magnitude": "removes single weights",
    "uniform_weights": "removes single weights",
    "lottery": "removes single weights",
    "guided": "must name at least one file of a pattern",  # as everywhere without its option
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_inside_a_detector_or_says_why_not(dense, method):
    """With trainable BatchNorm and the detector's own loss for calibration."""
    classifier, groups, _ = dense
    trainable, _ = build_detector(classifier, settings=replace(SETTINGS, norm="BN"))
    with EventStorage(0):
        arguments = {"loss": detection_loss(calibration_batches())}
        if method in REFUSED:
            with pytest.raises(ValueError, match=REFUSED[method]):
                prune((classifier, groups, trainable), Selection(0.5), method, **arguments)
            return
        pruned = prune((classifier, groups, trainable), Selection(0.5), method, **arguments)
    assert pruned.difference < 1e-4
    assert sum(len(keep) for keep in pruned.plan.keep.values()) == 120  # half of 16 + 32 + 64 + 128
    assert pruned.detector.backbone.output_shape().keys() == trainable.backbone.output_shape().keys()


def test_slimming_needs_scales_that_training_can_move(dense):
    with pytest.raises(ValueError, match=r"holds gamma as a constant; build the network with norm .BN."):
        prune(dense, Selection(0.5), "slimming")
