"""Distillation of detectors: the losses by hand, a teacher that nothing moves, the same bits after a kill."""

from copy import deepcopy
from math import log

import pytest
import torch
from detectron2.utils.events import EventStorage
from support.tiny_detector import SMALL, make_detector, settings, two_squares
from support.told import altered
from torchvision.models.resnet import BasicBlock, ResNet

from detect.build import build_detector
from detect.cost import part_macs
from detect.data.loader import train_loader
from detect.distillation import Teacher
from detect.heads import HEADS
from detect.settings import Distillation
from detect.train import train_detector
from training.seeding import seed_generators

pytestmark = pytest.mark.usefixtures("minute_a_step")

FROZEN = {"norm": "FrozenBN"}  # a student that computes as its teacher, which is in evaluation mode
HEADS = {
    "fpn": ({}, {}),
    "cascade": ({"head": "cascade"}, {}),
    "c4": ({"head": "c4", "strides": (16,), "anchor_sizes": None, **dict.fromkeys(HEADS["c4"].idle)}, {"features": 0}),
    "retinanet": (
        {"head": "retinanet", "anchor_sizes": (16, 32, 64, 128, 256), **dict.fromkeys(HEADS["retinanet"].idle)},
        {"logits": 0},
    ),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return two_squares(tmp_path_factory.mktemp("squares"))


def lesson(dataset, student, teacher, cfg):
    """The losses of the distillation, of a batch of two images; the gradients are in the student."""
    batch = next(iter(train_loader(dataset, cfg, batch_size=2, seed=0)))
    seed_generators(0, 0)
    with EventStorage():
        losses = teacher.teach(student.train(), lambda: student(batch))
    student.zero_grad()
    found = {name: loss for name, loss in losses.items() if "distill" in name}
    torch.stack(list(found.values())).sum().backward()
    return {name: loss.item() for name, loss in found.items()}


@pytest.mark.parametrize("head", HEADS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(dataset, head):
    model, distill = HEADS[head]
    student, cfg = make_detector(**FROZEN, **model)
    losses = lesson(dataset, student, Teacher(deepcopy(student), Distillation(**distill)), cfg)
    assert losses == pytest.approx(dict.fromkeys(losses, 0), abs=1e-9)
    wanted = {"loss_distill_features", "loss_distill_logits"} - {f"loss_distill_{name}" for name in distill}
    assert losses.keys() == wanted


def test_features_are_compared_level_by_level(dataset):
    """One of five levels is 0.5 higher in the teacher, at every place: a fifth of 0.25."""
    student, cfg = make_detector(**FROZEN)
    dense = deepcopy(student)
    dense.backbone.fpn_output2.bias.data += 0.5
    losses = lesson(dataset, student, Teacher(dense, Distillation(features=3.0, logits=0.0)), cfg)
    assert losses == pytest.approx({"loss_distill_features": 3 * 0.25 / 5})
    grad = student.backbone.fpn_output2.bias.grad  # 2 (student - teacher) / channels, of each of 8 channels
    assert grad.tolist() == pytest.approx([3 * 2 * -0.5 / 8 / 5] * 8, rel=1e-4)


@pytest.mark.parametrize("head", ["fpn", "cascade", "c4"])
def test_class_logits_are_compared_region_by_region(dataset, head):
    """Whatever the region, the student says 1/3 of two classes and the background, the teacher 1/2, 1/4 and 1/4."""
    student, cfg = make_detector(**FROZEN, **HEADS[head][0])
    dense = deepcopy(student)
    for detector, logits in ((student, [0.0, 0.0, 0.0]), (dense, [2 * log(2), 0.0, 0.0])):
        parts = detector.roi_heads.box_predictor
        for predictor in parts if head == "cascade" else [parts]:
            predictor.cls_score.weight.data.zero_()
            predictor.cls_score.bias.data = torch.tensor(logits)
    distill = Distillation(features=0.0, logits=0.5, temperature=2.0)
    losses = lesson(dataset, student, Teacher(dense, distill), cfg)
    by_hand = 0.5 * 4 * (0.5 * log(1.5) + 0.5 * log(0.75))
    assert losses == pytest.approx({"loss_distill_logits": by_hand})


def test_the_teacher_looks_at_the_students_regions_in_its_own_features(dataset):
    """Equal box heads: what differs is the pyramid under them."""
    student, cfg = make_detector(**FROZEN)
    dense = deepcopy(student)
    dense.backbone.fpn_output2.weight.data *= 3
    teacher = Teacher(dense, Distillation(features=0.0))
    assert lesson(dataset, student, teacher, cfg)["loss_distill_logits"] > 1e-8
    assert student.roi_heads.box_head.fc1.weight.grad.abs().sum() > 0
    assert student.backbone.bottom_up.body.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in dense.parameters())
    assert not student.backbone._forward_hooks and not student.roi_heads.box_pooler._forward_pre_hooks


def narrow(**model):
    """A detector with another backbone than its teacher's, of half the width."""
    torch.manual_seed(1)
    backbone = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2, width_per_group=64)
    backbone.layer4[0].conv1 = torch.nn.Conv2d(256, 7, 3, 2, 1, bias=False)
    backbone.layer4[0].bn1 = torch.nn.BatchNorm2d(7)
    backbone.layer4[0].conv2 = torch.nn.Conv2d(7, 512, 3, 1, 1, bias=False)
    return build_detector(backbone, altered(SMALL, **model), num_classes=2)


def test_training_moves_nothing_of_the_teacher(dataset, tmp_path):
    """Not its BatchNorm's statistics either, while the student's move."""
    student, cfg = narrow()
    dense, _ = make_detector()
    before, started = deepcopy(dense.state_dict()), deepcopy(student.state_dict())
    reported = []
    train_detector(
        student,
        cfg,
        dataset=dataset,
        **settings(),
        checkpoint=tmp_path / "c.pt",
        teacher=Teacher(dense.train(), Distillation()),
        report=lambda step, total, metrics: reported.append(metrics),
    )
    assert not any(module.training for module in dense.modules())
    assert all(p.grad is None and not p.requires_grad for p in dense.parameters())
    assert all(torch.equal(dense.state_dict()[name], value) for name, value in before.items())
    mean = "backbone.bottom_up.body.bn1.running_mean"
    assert not torch.equal(student.state_dict()[mean], started[mean])
    parts = sum(value for name, value in reported[0].items() if name.startswith("loss_"))
    assert reported[0]["loss"] == pytest.approx(parts)
    assert reported[0]["loss_distill_features"] > 0 and reported[0]["loss_distill_logits"] > 0


def test_killed_and_resumed_is_bit_equal(dataset, tmp_path, auto_is):
    class Killed(Exception):
        pass

    def kill(step, total, metrics):
        if step == 3:  # step 3 is lost; the checkpoint is of step 2
            raise Killed

    def trained(name, report=None):
        student, cfg = narrow()
        arguments = {"dataset": dataset, **settings(precision="auto", checkpoint_minutes=2), "report": report}
        teacher = Teacher(make_detector()[0], Distillation())
        outcome = train_detector(student, cfg, checkpoint=tmp_path / f"{name}.pt", teacher=teacher, **arguments)
        return student.state_dict(), outcome

    whole, outcome = trained("whole")
    assert outcome.precision.name == auto_is
    with pytest.raises(Killed):
        trained("killed", kill)
    resumed, again = trained("killed")
    assert outcome.final_loss == again.final_loss
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_teacher_costs_what_it_computes():
    """No RPN; 16 sampled regions through the box head: fc1 and fc2 of 16, scores of 3, boxes of 2 classes."""
    detector, cfg = make_detector()
    size = (64, 64)
    forward = part_macs(detector, image_size=size).of(proposals=16)
    features = forward.backbone + forward.fpn
    assert part_macs(detector, image_size=size).teacher(cfg, Distillation(logits=0)) == features
    region = 8 * 7 * 7 * 16 + 16 * 16 + 16 * 3 + 16 * 2 * 4
    assert part_macs(detector, image_size=size).teacher(cfg, Distillation()) == features + 16 * region
    assert forward.rpn > 0
