"""Pruning inside a detector: masked equals smaller, widths of the features stay, the plan is the classifier's."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from support.kinds_of_methods import MASKING
from support.told import altered
from torch import nn

from classify.models import arch, build, rebuild
from classify.models.preresnet import PreResNet, PreResNetShape
from detect.build import build_detector
from detect.prune import backbone_groups, detection_losses, prune_detector
from detect.settings import DetectorSettings
from pruning.cost import count_macs
from pruning.design.pattern import Pattern
from pruning.methods import METHODS
from pruning.methods.guided import GuidedOptions
from pruning.plan import PruningPlan
from pruning.select import Selection

OPTIONS = {"width": 0.25}
SETTINGS = DetectorSettings(image_size=64, max_image_size=64, fpn_channels=16, box_head_dim=32)


def randomise(classifier):
    """Affine parameters and means that make a wrong surgery visible."""
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1)
    return classifier


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    classifier = randomise(build("resnet10", 3, OPTIONS))
    groups = backbone_groups(classifier, torch.zeros(1, 3, 64, 64), strides=(4, 8, 16, 32), stages=("layer1",))
    return classifier, groups, build_detector(classifier, SETTINGS, num_classes=2)[0]


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
    again, _ = build_detector(rebuild(plan, 3), SETTINGS, num_classes=2)
    again.load_state_dict(pruned.detector.state_dict())
    image = [{"image": torch.randint(256, (3, 64, 64)).float()}]
    one, two = pruned.detector.eval()(image)[0]["instances"], again.eval()(image)[0]["instances"]
    assert torch.equal(one.pred_boxes.tensor, two.pred_boxes.tensor)


def test_a_pruned_classifier_becomes_a_backbone(dense):
    plan = prune(dense, Selection(0.5)).plan
    classifier = rebuild(plan, 3)
    detector, _ = build_detector(classifier, SETTINGS, num_classes=2)
    body, state = detector.backbone.bottom_up.body.state_dict(), classifier.state_dict()
    assert state.keys() - body.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())


def test_what_cannot_be_done_inside_a_detector_says_so(dense):
    with pytest.raises(ValueError, match="leaves no channel of 16"):
        prune(dense, Selection(0.97))
    with pytest.raises(ValueError, match="no layer matches 'layer9"):
        prune(dense, Selection(0.5, skip=("layer9.*",)))


def calibration_batches():
    instances = Instances((64, 64))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[8.0, 8, 40, 40]])), torch.tensor([1])
    generator = torch.Generator().manual_seed(0)
    return [
        [{"image": torch.randint(256, (3, 64, 64), generator=generator).float(), "instances": instances}]
        for _ in range(2)
    ]


@pytest.fixture
def options_of(tmp_path):
    """Options of the methods that cannot do without."""
    (tmp_path / "pattern.json").write_text(Pattern(widths=(0.5,)).to_json())
    return {"guided": GuidedOptions((str(tmp_path / "pattern.json"),))}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_inside_a_detector(dense, method, options_of):
    """With trainable BatchNorm and the detector's own loss for calibration."""
    classifier, groups, _ = dense
    trainable, _ = build_detector(classifier, altered(SETTINGS, norm="BN"), num_classes=2)
    losses = detection_losses(calibration_batches())
    half = (classifier, groups, trainable), Selection(0.5), method
    pruned = prune(*half, losses=losses, options=options_of.get(method))
    assert pruned.difference < 1e-4
    if method not in MASKING:
        assert sum(len(keep) for keep in pruned.plan.keep.values()) == 120  # half of 16 + 32 + 64 + 128
        assert not pruned.masks
    assert pruned.detector.backbone.output_shape().keys() == trainable.backbone.output_shape().keys()


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_the_whole_detector_runs_once_a_batch_for_all_layers(dense, method):
    classifier, groups, _ = dense
    trainable, _ = build_detector(classifier, altered(SETTINGS, norm="BN"), num_classes=2)
    of_batches, seen = detection_losses(calibration_batches()), []

    def losses(detector):
        for loss in of_batches(detector):
            seen.append(float(loss))
            yield loss

    assert len(prune((classifier, groups, trainable), Selection(0.5), method, losses=losses).plan.keep) == 4
    assert len(seen) == 2 and all(loss > 0 for loss in seen)


def test_calibration_leaves_the_detector_and_the_generators_as_they_were(dense):
    """Also normalisation outside of the backbone: statistics stay, and are used, so that a batch of two is enough."""
    overrides = {"MODEL.FPN.NORM": "BN"}
    detector, _ = build_detector(dense[0], altered(SETTINGS, norm="BN", overrides=overrides), num_classes=2)
    detector.eval().proposal_generator.train()
    modes = {name: m.training for name, m in detector.named_modules()}
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    losses = detection_losses(calibration_batches())
    assert [x.item() for x in losses(detector)] == [x.item() for x in losses(detector)]
    assert torch.equal(torch.rand(3), expected)
    assert {name: m.training for name, m in detector.named_modules()} == modes
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("method", MASKING)
def test_masks_are_those_of_the_backbones_convolutions(dense, method):
    """They lie on the body's own parameters, zero them there and nowhere else, and remove half of the weights."""
    body = dense[2].backbone.bottom_up.body
    pruned = prune(dense, Selection(0.5), method, losses=detection_losses(calibration_batches()))
    small = pruned.detector.backbone.bottom_up.body
    weights = {f"{name}.weight" for name, layer in body.named_modules() if isinstance(layer, nn.Conv2d)}
    assert pruned.masks.keys() == weights
    assert not pruned.plan.changes_shape
    total = sum(mask.numel() for mask in pruned.masks.values())
    kept = sum(int(mask.sum()) for mask in pruned.masks.values())
    assert abs(kept - total / 2) <= len(weights) / 2
    for name, parameter in body.named_parameters():
        assert torch.equal(small.get_parameter(name), parameter * pruned.masks.get(name, torch.tensor(1.0)))


def test_selected_inputs_are_carried_into_a_detector(options_of):
    """A pre-activation backbone, frozen or not: its trunk keeps its width, each second block reads some of it."""
    torch.manual_seed(0)
    shape = PreResNetShape((2, 2, 2, 2), (4, 8, 16, 32), 8, "imagenet")
    classifier = randomise(PreResNet(shape, 3))
    groups = backbone_groups(classifier, torch.zeros(1, 3, 64, 64), strides=(4, 8, 16, 32))
    for norm, method in (("FrozenBN", "guided"), ("BN", "slimming")):
        detector, _ = build_detector(classifier, altered(SETTINGS, norm=norm, freeze_at=0), num_classes=2)
        pruned = prune((classifier, groups, detector), Selection(0.5), method, options=options_of.get(method))
        assert pruned.plan.select.keys() == {f"layer{stage}.1.conv1" for stage in (1, 2, 3, 4)}
        assert pruned.difference < 1e-4
        assert pruned.detector.backbone.bottom_up.output_shape() == detector.backbone.bottom_up.output_shape()


def test_slimming_needs_scales_that_training_can_move(dense):
    with pytest.raises(ValueError, match=r"holds gamma as a constant; build the network with norm .BN."):
        prune(dense, Selection(0.5), "slimming")
