"""Cascade R-CNN, RetinaNet and Mask R-CNN around a classifier: built, trained, resumed, counted, pruned, exported."""

import math

import pytest
import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.utils.events import EventStorage
from support.tiny_detector import SMALL, make_detector, settings, two_squares
from support.told import altered

import detect.build
from classify.export import export
from classify.models import arch, build
from detect.build import build_detector
from detect.cost import detector_params, part_macs
from detect.data.loader import train_loader
from detect.evaluate import METRICS, evaluate_detector
from detect.export import SIGNATURE, ImageDetector, example_image, number_of_classes
from detect.heads import HEADS as ALL
from detect.prune import backbone_groups, prune_detector
from detect.settings import DetectorSettings
from detect.train import train_detector
from pruning.cost import count_params
from pruning.select import Selection

pytestmark = pytest.mark.usefixtures("minute_a_step")

ONE_STAGE = {"head": "retinanet", "anchor_sizes": (16, 32, 64, 128, 256), **dict.fromkeys(ALL["retinanet"].idle)}
HEADS = {"cascade": {"head": "cascade"}, "retinanet": ONE_STAGE, "mask": {"head": "mask"}}
each = pytest.mark.parametrize("head", HEADS)
of_boxes = pytest.mark.parametrize("head", ["cascade", "retinanet"])


@each
def test_it_trains_and_is_evaluated(head, tmp_path):
    detector, cfg = make_detector(**HEADS[head])
    dataset = two_squares(tmp_path)
    before = {name: p.clone() for name, p in detector.named_parameters() if p.dim() > 1}  # convolutions, linear layers
    losses = []
    outcome = train_detector(
        detector,
        cfg,
        dataset=dataset,
        **settings(precision="float32", warmup=0.0),
        checkpoint=tmp_path / "checkpoint.pt",
        report=lambda step, total, metrics: losses.append(metrics),
    )
    assert outcome.images_seen == 8 and 0 < outcome.final_loss < 100
    changed = {name for name, p in detector.named_parameters() if name in before and not torch.equal(p, before[name])}
    assert changed == before.keys()
    expected = {"retinanet": {"loss_cls", "loss_box_reg"}, "cascade": {f"loss_cls_stage{k}" for k in range(3)}}
    assert expected.get(head, {"loss_cls", "loss_mask"}) <= losses[-1].keys()
    assert all(math.isfinite(value) for told in losses for value in told.values())
    scores = evaluate_detector(detector, cfg, dataset=dataset)
    assert set(METRICS) <= scores.keys() and scores["detections"] >= 0


@each
def test_a_resumed_training_ends_with_the_same_bits(head, tmp_path):
    """RetinaNet's moving mean of positive anchors is part of what a checkpoint keeps."""

    class Killed(Exception):
        pass

    def kill(step, total, metrics):
        if step == 3:  # step 3 is lost; the checkpoint is of step 2
            raise Killed

    common = {"dataset": two_squares(tmp_path), **settings(precision="float32", checkpoint_minutes=2)}
    whole, cfg = make_detector(**HEADS[head])
    train_detector(whole, cfg, **common, checkpoint=tmp_path / "whole.pt")
    with pytest.raises(Killed):
        train_detector(make_detector(**HEADS[head])[0], cfg, **common, checkpoint=tmp_path / "killed.pt", report=kill)
    resumed, _ = make_detector(**HEADS[head])
    train_detector(resumed, cfg, **common, checkpoint=tmp_path / "killed.pt")
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_the_structure_is_detectron2s():
    cascade, _ = make_detector(head="cascade")
    assert isinstance(cascade.roi_heads, CascadeROIHeads) and len(cascade.roi_heads.box_head) == 3
    one, cfg = make_detector(**{**ONE_STAGE, "anchor_sizes": None})
    assert isinstance(one, RetinaNet) and one.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    first = cfg.MODEL.ANCHOR_GENERATOR.SIZES[0]  # Base-RetinaNet.yaml: 32 at p3, three to an octave
    assert first == pytest.approx([32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)])
    assert one.backbone.top_block.p6.in_channels == 128  # reads the last stage, as Detectron2's does
    assert {head: number_of_classes(make_detector(**HEADS[head])[0].state_dict()) for head in HEADS} == {
        "cascade": 2,
        "retinanet": 2,
        "mask": 2,
    }


@pytest.mark.parametrize(("channels", "deviation"), [(256, 0.01), (64, 0.02)])
def test_retinanets_head_is_drawn_so_that_as_much_is_left_at_any_width(channels, deviation):
    """With a deviation of 0.01, which is Detectron2's at 256 channels, a head of 64 loses half in each convolution."""
    one, _ = make_detector(**ONE_STAGE | {"fpn_channels": channels})
    weights = [p.flatten() for name, p in one.head.named_parameters() if p.dim() == 4]
    assert len(weights) == 2 * 4 + 2
    assert all(float(weight.std()) == pytest.approx(deviation, rel=0.05) for weight in weights)


def test_a_narrow_retinanet_learns(tmp_path):
    """Of 32 channels; with Detectron2's own weights its classes' loss was 1.0 still after 100 steps."""
    narrow = ONE_STAGE | {"fpn_channels": 32, "strides": (4, 8, 16), "anchor_sizes": (8, 16, 32, 64, 128)}
    detector, cfg = make_detector(width=1.0, **narrow)
    losses = []
    train_detector(
        detector,
        cfg,
        dataset=two_squares(tmp_path),
        **settings(iterations=60, batch_size=4, lr=0.03),
        checkpoint=tmp_path / "checkpoint.pt",
        report=lambda step, total, metrics: losses.append(metrics["loss_cls"]),
    )
    assert min(losses[:5]) > 0.7 and max(losses[-5:]) < 0.6


def test_macs_of_retinanet_equal_the_closed_form():
    """At 128 x 128 pixels p3..p7 have 256, 64, 16, 4 and 1 positions; 9 anchors, 2 classes, 8 channels."""
    detector, cfg = make_detector(**ONE_STAGE)
    found = part_macs(detector, image_size=(128, 128)).evaluation(cfg)
    places = (256, 64, 16, 4, 1)
    laterals = sum(n * (width * 8 + 8 * 8 * 9) for width, n in zip((32, 64, 128), places, strict=False))
    assert found.fpn == laterals + 4 * 128 * 8 * 9 + 1 * 8 * 8 * 9
    assert found.rpn == sum(places) * (8 * 8 * 9 * 8 + 8 * 9 * 9 * 2 + 8 * 9 * 9 * 4)
    assert found.roi_heads == 0 and part_macs(detector, image_size=(128, 128)).training(cfg) == 3 * found.total
    assert detector_params(detector)[1] == count_params(detector)


def test_a_cascade_counts_every_stage():
    settings = {"overrides": {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}}
    one, cfg = make_detector(**settings)
    three, _ = make_detector(head="cascade")
    single, cascade = (part_macs(d, image_size=(64, 64)).evaluation(cfg).roi_heads for d in (one, three))
    assert cascade == 3 * single > 0


@each
def test_the_backbone_is_pruned_inside(head):
    options = {"depth": 18, "width": 0.25}
    classifier = build("imagenet_resnet", 3, options)
    strides = (8, 16, 32) if head == "retinanet" else (4, 8, 16, 32)
    detector, cfg = build_detector(classifier, altered(SMALL, **HEADS[head]), num_classes=2)
    groups = backbone_groups(classifier, torch.zeros(1, 3, 64, 64), strides=strides)
    pruned = prune_detector(
        detector.eval(),
        arch("imagenet_resnet", options),
        groups,
        "l1_filter",
        Selection(0.5),
        batch=torch.randn(2, 3, 64, 64),
        seed=0,
    )
    assert pruned.difference < 1e-4 and pruned.plan.changes_shape
    before, after = (part_macs(d, image_size=(64, 64)).evaluation(cfg) for d in (detector, pruned.detector))
    assert after.backbone < before.backbone and (after.fpn, after.rpn) == (before.fpn, before.rpn)


@pytest.mark.parametrize("name", ALL["retinanet"].idle)
def test_what_retinanet_has_not_is_refused(name):
    with pytest.raises(ValueError, match=f"head: retinanet has no {name}; set it to null or leave it out"):
        make_detector(**{**ONE_STAGE, name: 16})


@of_boxes
def test_it_is_exported_and_agrees(head):
    threshold = "RETINANET" if head == "retinanet" else "ROI_HEADS"
    overrides = {f"MODEL.{threshold}.SCORE_THRESH_TEST": 0.0}
    detector, _ = make_detector(**HEADS[head], overrides=overrides)
    if head == "retinanet":  # fresh, all its scores are nearly equal, and rounding orders them
        torch.nn.init.normal_(detector.head.cls_score.weight)
        torch.nn.init.normal_(detector.head.cls_subnet[0].weight, std=0.3)
    content, difference = export(ImageDetector(detector), example_image((64, 64)), SIGNATURE, "torchscript")
    assert content and difference < 1e-4


def test_images_of_several_sizes_are_joined_where_detectron2_is_asked_to(tmp_path):
    dataset = two_squares(tmp_path)
    plain, cfg = make_detector(overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
    keys = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (64, 96), "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    augmented = make_detector(overrides=keys)[1]
    first, second = (evaluate_detector(plain, c, dataset=dataset) for c in (cfg, augmented))
    assert first["detections"] != second["detections"]
    assert "4 sizes and flips" in second["metric"] and "TEST.AUG" not in first["metric"]


@pytest.mark.parametrize("head", ["cascade", "mask"])
def test_what_is_faster_on_the_cpu_is_equal_to_detectron2s_own(head, tmp_path, monkeypatch):
    """Losses and gradients of two images, and what is found in them."""
    monkeypatch.setattr(detect.build, "use_separable_roi_align", lambda detector: None)
    own = {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN", "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead"}
    all_scores = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    theirs, cfg = make_detector(head=head, overrides=own | all_scores)
    monkeypatch.undo()
    ours, _ = make_detector(head=head, overrides=all_scores)
    ours.load_state_dict(theirs.state_dict())
    kinds = [{type(module).__name__ for module in detector.modules()} for detector in (theirs, ours)]
    assert kinds[1] - kinds[0] == {"BatchedRPN", "ConvolvedBoxHead", "SeparableROIAlign"}
    batch = next(iter(train_loader(two_squares(tmp_path), cfg, batch_size=2, seed=0)))
    losses, gradients, found = [], [], []
    for detector in (theirs, ours):
        torch.manual_seed(0)
        with EventStorage():
            losses.append(detector.train()(batch))
        sum(losses[-1].values()).backward()
        gradients.append(dict(detector.named_parameters()))
        with torch.no_grad():
            found.append(detector.eval()(batch)[0]["instances"])
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, rtol=1e-4, atol=1e-5)
    for name, parameter in gradients[0].items():
        torch.testing.assert_close(gradients[1][name].grad, parameter.grad, rtol=1e-3, atol=1e-4)
    assert len(found[0]) == len(found[1]) > 10
    torch.testing.assert_close(found[1].pred_boxes.tensor, found[0].pred_boxes.tensor, rtol=0, atol=1e-2)  # pixels
    torch.testing.assert_close(found[1].scores, found[0].scores, rtol=0, atol=1e-5)


def test_settings_left_out_are_detectron2s():
    detector, cfg = build_detector(build("imagenet_resnet", 3, {"depth": 18}), DetectorSettings(), num_classes=2)
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TEST) == ((800,), 1333)
    assert cfg.MODEL.FPN.OUT_CHANNELS == 256 and detector.roi_heads.num_classes == 2
