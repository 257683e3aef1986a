"""Pruning a body together with its FPN: the groups of both, widths by hand, masked equals smaller, strict loading."""

import copy

import pytest
import torch
from detectron2.structures import Boxes, Instances
from support.kinds_of_methods import MASKING
from support.told import altered
from torch import fx, nn

from classify.models import arch, build, rebuild
from detect.build import build_detector
from detect.cost import detector_params
from detect.heads import HEADS
from detect.prune import detection_losses, prune_detector
from detect.pyramid import join, narrow_pyramid, put_back, pyramid_groups
from detect.settings import DetectorSettings
from pruning.cost import count_params
from pruning.design.pattern import Pattern
from pruning.methods import METHODS, Request, get_method
from pruning.methods.guided import GuidedOptions
from pruning.methods.soft_filter import SoftFilterOptions
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.surgery import mask

OPTIONS = {"width": 0.125}  # stages of 8, 16, 32 and 64 channels
STAGES = ("layer1", "layer2", "layer3", "layer4")
SETTINGS = DetectorSettings(
    image_size=64,
    max_image_size=64,
    strides=(4, 8, 16, 32),
    norm="BN",
    fpn_channels=10,
    box_head_dim=16,
    pre_nms_topk=60,
    test_proposals=30,
    overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0},
)
WITH_NORM = altered(SETTINGS, overrides={**SETTINGS.overrides, "MODEL.FPN.NORM": "BN"})
LATERALS = ("fpn_lateral5", "fpn_lateral4", "fpn_lateral3", "fpn_lateral2")
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


DENSE = altered(
    SETTINGS,
    head="retinanet",
    strides=(8, 16, 32),
    overrides={"MODEL.RETINANET.SCORE_THRESH_TEST": 0.0, "MODEL.FPN.NORM": "BN"},
    **dict.fromkeys(HEADS["retinanet"].idle),
)


def randomise(network):
    """Affine parameters and means that make a wrong surgery visible."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1)


class Whole:
    """A classifier, the detector around it, and the groups of both body and FPN."""

    def __init__(self, settings):
        torch.manual_seed(0)
        self.settings = settings
        self.classifier = build("resnet10", 3, OPTIONS)
        randomise(self.classifier)
        self.detector, self.cfg = build_detector(self.classifier, settings, num_classes=2)
        randomise(self.detector.backbone)
        for layer in self.detector.head.modules() if settings.head == "retinanet" else ():
            if isinstance(layer, nn.Conv2d):  # fresh, all its scores are nearly equal
                nn.init.kaiming_normal_(layer.weight)
        reads = {"strides": settings.strides, "stages": STAGES}
        self.groups = pyramid_groups(self.detector.backbone, self.classifier, torch.zeros(1, 3, 64, 64), **reads)

    def prune(self, selection, method="l1_filter", **arguments):
        named = arch("resnet10", OPTIONS)
        settings = {"batch": X, "seed": 0, "scope": "backbone+fpn", **arguments}
        return prune_detector(self.detector, named, self.groups, method, selection, **settings)

    def rebuilt(self, plan):
        """An untrained detector of a plan's shape."""
        parts = "fpn_", "top_block."
        body, own = (plan.part(lambda name, fpn=fpn: name.startswith(parts) is fpn) for fpn in (False, True))
        detector, _ = build_detector(rebuild(body, 3), self.settings, num_classes=2)
        narrow_pyramid(detector.backbone, own)
        return detector

    def masked(self, plan):
        """The dense detector in which all that the plan removes is zero."""
        layers = mask(join(self.detector.backbone), plan, self.groups)
        detector = copy.deepcopy(self.detector)
        put_back(detector.backbone, layers)
        detector.backbone.bottom_up.body = fx.GraphModule(layers, detector.backbone.bottom_up.body.graph)
        return detector


@pytest.fixture(scope="module")
def plain():
    return Whole(SETTINGS)


@pytest.fixture(scope="module")
def normed():
    return Whole(WITH_NORM)


def detections(detector):
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return detector.eval()([{"image": image}])[0]["instances"]


def assert_same_detections(one, two, *, scores=1e-4):
    first, second = detections(one), detections(two)
    assert len(first) == len(second) > 5
    torch.testing.assert_close(first.pred_boxes.tensor, second.pred_boxes.tensor, rtol=0, atol=1e-3)  # pixels
    torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=scores)
    assert torch.equal(first.pred_classes, second.pred_classes)


@pytest.mark.parametrize("settings", [SETTINGS, altered(WITH_NORM, norm="FrozenBN")], ids=["plain", "normed"])
def test_body_and_pyramid_joined_compute_the_same_with_the_same_layers(settings):
    whole = Whole(settings)
    joined = join(whole.detector.backbone)
    assert joined.get_parameter("fpn_lateral3.weight") is whole.detector.backbone.fpn_lateral3.weight
    assert joined.get_submodule("layer2.0.conv1") is whole.detector.backbone.bottom_up.body.layer2.get_submodule(
        "0.conv1"
    )
    with torch.no_grad():
        expected, found = whole.detector.backbone.eval()(X), joined.eval()(X)
    assert list(found) == list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_laterals_are_one_group_and_what_the_heads_read_is_none(plain):
    groups = {group.name: group for group in plain.groups}
    own = groups["fpn_lateral5"]
    assert (own.width, own.producers, own.stage, own.fixed, own.inner) == (10, LATERALS, 4, None, True)
    members = {(member.layer, member.side) for member in own.members}
    assert members == {(name, "out") for name in LATERALS} | {(f"fpn_output{k}", "in") for k in (2, 3, 4, 5)}
    assert not any(name.startswith("fpn_output") for group in plain.groups for name in group.producers)
    trunk = groups["layer2.0.conv2"]
    assert not trunk.inner and ("fpn_lateral3", "in") in {(m.layer, m.side) for m in trunk.members}
    assert list(groups)[-1] == "fpn_lateral5"


def test_half_of_the_pyramid_by_hand(plain):
    """10 channels become 5; the outputs keep 10, and only inner channels of the body go."""
    before = {name: tensor.clone() for name, tensor in plain.detector.state_dict().items()}
    pruned = plain.prune(Selection(0.5))
    counts = {f"layer{i}.0.conv1": n for i, n in ((1, 4), (2, 8), (3, 16), (4, 32))} | {"fpn_lateral5": 5}
    assert pruned.plan.kept_counts() == counts
    fpn = pruned.detector.backbone
    shapes = {name: tuple(fpn.get_parameter(f"{name}.weight").shape) for name in ("fpn_lateral4", "fpn_output4")}
    assert shapes == {"fpn_lateral4": (5, 32, 1, 1), "fpn_output4": (10, 5, 3, 3)}
    own = count_params(fpn) - count_params(fpn.bottom_up)
    assert own == 5 * (8 + 16 + 32 + 64) + 4 * 5 + 4 * (10 * 5 * 9 + 10)
    assert {shape.channels for shape in fpn.output_shape().values()} == {10}
    for name, tensor in plain.detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_pyramid_is_a_stage_with_a_ratio_of_its_own(plain):
    pruned = plain.prune(Selection((0.5, 0.5, 0.25, 0.0, 0.7)))
    assert list(pruned.plan.kept_counts().values()) == [4, 8, 24, 64, 3]
    with pytest.raises(ValueError, match="4 ratios by stage, but fpn_lateral5 is in stage 5"):
        plain.prune(Selection((0.5, 0.5, 0.25, 0.0)))
    assert "fpn_lateral5" not in plain.prune(Selection(0.5, skip=("fpn_*",))).plan.keep


def test_laterals_follow_a_trunk_that_narrows(plain):
    pruned = plain.prune(Selection(0.5, scope="all"))
    fpn = pruned.detector.backbone
    assert [fpn.get_submodule(name).in_channels for name in LATERALS] == [32, 16, 8, 4]
    assert {name: shape.channels for name, shape in fpn.bottom_up.output_shape().items()} == {
        "s4": 4,
        "s8": 8,
        "s16": 16,
        "s32": 32,
    }
    assert_same_detections(pruned.detector, plain.masked(pruned.plan))
    with pytest.raises(AssertionError):
        assert_same_detections(pruned.detector, plain.detector)


@pytest.fixture(scope="module")
def dense():
    return Whole(DENSE)


def test_retinanets_levels_on_top_follow_the_trunk_they_read(dense):
    """p6 reads the last stage, p7 reads p6; the head reads both, whose widths therefore stay."""
    trunk = next(group for group in dense.groups if group.name == "layer4.0.conv2")
    assert {("fpn_lateral5", "in"), ("top_block.p6", "in")} <= {(m.layer, m.side) for m in trunk.members}
    assert not any("top_block" in name for group in dense.groups for name in group.producers)
    pruned = dense.prune(Selection(0.5, scope="all"))
    fpn = pruned.detector.backbone
    assert (fpn.top_block.p6.in_channels, fpn.top_block.p6.out_channels, fpn.top_block.p7.in_channels) == (32, 10, 10)
    assert {shape.channels for shape in fpn.output_shape().values()} == {10}
    assert_same_detections(pruned.detector, dense.masked(pruned.plan))
    with pytest.raises(AssertionError):
        assert_same_detections(pruned.detector, dense.detector)


@pytest.mark.parametrize("method", ["l1_filter", "soft_filter", "slimming", "thinet", "magnitude"])
def test_retinanets_pyramid_is_pruned_and_its_plan_rebuilds_it(dense, method, options_of):
    normalizer = dense.detector.loss_normalizer.clone()
    losses = calibration() if get_method(method).needs != "nothing" else None
    pruned = dense.prune(Selection(0.5, scope="all"), method, losses=losses, options=options_of.get(method))
    assert pruned.difference < 1e-4
    assert torch.equal(dense.detector.loss_normalizer, normalizer)  # which losses of a training move
    if method in MASKING:
        assert {"top_block.p6.weight", "fpn_lateral5.weight"} <= pruned.masks.keys()
        assert detector_params(pruned.detector, pruned.masks)[1] < detector_params(dense.detector)[1]
        return
    again = dense.rebuilt(PruningPlan.from_json(pruned.plan.to_json()))
    again.load_state_dict(pruned.detector.state_dict())
    assert_same_detections(again, pruned.detector, scores=0)


@pytest.fixture
def options_of(tmp_path):
    """Options of the methods that cannot do without."""
    (tmp_path / "pattern.json").write_text(Pattern(widths=(0.5,)).to_json())
    return {"guided": GuidedOptions((str(tmp_path / "pattern.json"),))}


def calibration():
    instances = Instances((64, 64))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[8.0, 8, 40, 40]])), torch.tensor([1])
    image = torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    return detection_losses([[{"image": image, "instances": instances}]])


@pytest.mark.parametrize("scope", [pytest.param("inner", marks=pytest.mark.slow), "all"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_both_and_the_plan_rebuilds_it(normed, method, scope, options_of):
    """In scope `all` stage outputs narrow too; what is rebuilt loads strictly and detects the same."""
    losses = calibration() if get_method(method).needs != "nothing" else None
    pruned = normed.prune(Selection(0.5, scope=scope), method, losses=losses, options=options_of.get(method))
    assert pruned.difference < 1e-4
    if method in MASKING:
        assert not pruned.plan.changes_shape
        assert {"fpn_lateral2.weight", "fpn_output5.weight", "layer1.0.conv1.weight"} <= pruned.masks.keys()
        weight = pruned.detector.backbone.fpn_output5.weight
        assert torch.equal(weight == 0, ~pruned.masks["fpn_output5.weight"].bool())
        return
    parts = {name for table in (pruned.plan.keep, pruned.plan.scatter) for name in table}
    assert parts & set(LATERALS) or {f"{name}.norm" for name in LATERALS} <= parts
    again = normed.rebuilt(PruningPlan.from_json(pruned.plan.to_json()))
    again.load_state_dict(pruned.detector.state_dict())
    assert_same_detections(again, pruned.detector, scores=0)
    if get_method(method).needs == "nothing":  # others rewrite weights: then `difference` compares
        assert_same_detections(pruned.detector, normed.masked(pruned.plan))


def test_filters_of_a_pyramid_without_normalisation_are_scattered(plain):
    """Soft pruning takes each lateral's own filters: 7 of 10, put back among the 10 that the sum has."""
    pruned = plain.prune(Selection(0.3), "soft_filter", options=SoftFilterOptions())
    assert {name: len(kept) for name, kept in pruned.plan.scatter.items() if "fpn" in name} == dict.fromkeys(
        LATERALS, 7
    )
    again = plain.rebuilt(pruned.plan)
    again.load_state_dict(pruned.detector.state_dict())
    assert_same_detections(again, pruned.detector, scores=0)
    assert_same_detections(pruned.detector, plain.masked(pruned.plan))


def test_what_a_method_adds_to_training_reaches_the_pyramid(normed):
    """Slimming's subgradient, s * sign(gamma), on a lateral's BatchNorm as on the body's."""
    method = get_method("slimming")
    effect = method.training_effect(
        join(normed.detector.backbone), Request(normed.groups, Selection(0.5), method.options(s=0.25), seed=0)
    )
    norms = [
        normed.detector.backbone.fpn_lateral2.norm,
        normed.detector.backbone.bottom_up.body.layer2.get_submodule("0.bn1"),
    ]
    for norm in norms:
        norm.weight.grad = torch.zeros_like(norm.weight)
    effect.after_backward()
    for norm in norms:
        assert torch.equal(norm.weight.grad, 0.25 * norm.weight.sign())
        norm.weight.grad = None


def test_an_empty_part_of_a_plan_changes_nothing(plain):
    """Of a detector pruned in scope `backbone`."""
    detector = copy.deepcopy(plain.detector)
    narrow_pyramid(detector.backbone, PruningPlan("resnet10", OPTIONS))
    assert_same_detections(detector, plain.detector, scores=0)


def test_detectors_that_have_no_pyramid_to_prune_are_refused(plain):
    single = altered(SETTINGS, head="c4", strides=(16,), fpn_channels=None, box_head_dim=None)
    detector, _ = build_detector(plain.classifier, single, num_classes=2)
    with pytest.raises(
        ValueError, match=r"scope 'backbone\+fpn' needs a detector with an FPN, this one has SingleLevel"
    ):
        prune_detector(
            *(detector, arch("resnet10", OPTIONS), plain.groups, "random", Selection(0.5)),
            batch=X,
            seed=0,
            scope="backbone+fpn",
        )
    mixing, _ = build_detector(
        plain.classifier, altered(SETTINGS, fpn_channels=32, overrides={"MODEL.FPN.NORM": "GN"}), num_classes=2
    )
    with pytest.raises(ValueError, match=r"an FPN with GroupNorm cannot be pruned: set MODEL\.FPN\.NORM to BN"):
        join(mixing.backbone)


def test_a_scattering_convolution_in_front_of_a_norm_is_refused(normed):
    with pytest.raises(ValueError, match=r"fpn_lateral2: a normalisation of its own follows, so it cannot scatter"):
        normed.prune(Selection(0.3), "soft_filter", options=SoftFilterOptions(zero_norm=False))
