"""Distillation of classifiers: the loss by hand, and a teacher that nothing moves."""

from copy import deepcopy
from math import log

import pytest
import torch
from support import small_training
from support.processes_training import images, network
from support.told import told
from torch import nn

from classify.distillation import Distillation, Teacher, divergence
from classify.train import train_classifier
from pruning.masked_training import HoldMasks
from pruning.masks import Masks

# softened by 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2
TEACHER, STUDENT = torch.tensor([[2 * log(3), 0.0]]), torch.zeros(1, 2)
KL = 0.75 * log(1.5) + 0.25 * log(0.5)  # 0.1308


class Says(nn.Module):
    """Answers as TEACHER for each image."""

    def forward(self, images):
        return TEACHER.expand(len(images), -1)


def test_the_divergence_is_that_by_hand():
    assert float(divergence(STUDENT, TEACHER, 2.0)) == pytest.approx(4 * KL)
    two = divergence(STUDENT.expand(2, -1), TEACHER.expand(2, -1), 2.0)
    assert float(two) == pytest.approx(8 * KL)  # a sum over the rows
    assert float(divergence(TEACHER, TEACHER, 2.0)) == 0


def test_its_gradient_is_that_of_hintons_cross_entropy():
    """T (q_student - q_teacher) for each logit: their eq. 2 times T^2."""
    student = STUDENT.clone().requires_grad_()
    divergence(student, TEACHER, 2.0).backward()
    assert student.grad.flatten().tolist() == pytest.approx([2 * (0.5 - 0.75), 2 * (0.5 - 0.25)])


def test_labels_and_teacher_share_the_loss():
    teacher = Teacher(Says(), Distillation(weight=0.25, temperature=2.0))
    found = teacher.soften(torch.tensor(10.0), STUDENT.expand(3, -1), torch.zeros(3, 3, 8, 8))
    assert float(found) == pytest.approx(0.75 * 10 + 0.25 * 3 * 4 * KL)


def trained(tmp_path, student, teacher, effects=(), **changes):
    losses = []
    train_classifier(
        student,
        images(),
        **told(small_training.SETTINGS, precision="float32", report_every=1, **changes),
        checkpoint=tmp_path / "c.pt",
        teacher=teacher,
        report=lambda step, total, metrics: losses.append(metrics["loss"]),
        effects=effects,
    )
    return losses


def test_a_student_that_is_its_teacher_learns_nothing(tmp_path):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    before = deepcopy(student)
    teacher = Teacher(deepcopy(student), Distillation(weight=1.0))
    losses = trained(tmp_path, student, teacher, weight_decay=0.0)
    assert losses == pytest.approx([0] * len(losses), abs=1e-5)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], value)


def test_nothing_of_the_teacher_moves_and_masks_hold(tmp_path):
    """Not its BatchNorm's statistics either, while the student's do."""
    student, dense = network(), network()
    before = deepcopy(dense.state_dict())
    mask = torch.ones_like(student[4].weight, dtype=torch.bool)
    mask[:, ::2] = False
    teacher = Teacher(dense.train(), Distillation())
    trained(tmp_path, student, teacher, [HoldMasks(student, Masks({"4.weight": mask}))])
    assert not dense.training
    assert all(p.grad is None and not p.requires_grad for p in dense.parameters())
    assert all(torch.equal(dense.state_dict()[name], value) for name, value in before.items())
    assert not torch.equal(student[1].running_mean, dense[1].running_mean)
    assert not student[4].weight[:, ::2].any() and student[4].weight[:, 1::2].any()
    assert student[4].weight.is_contiguous() and dense[4].weight.is_contiguous()


def test_a_teacher_changes_what_is_learnt(tmp_path):
    plain, taught = network(), network()
    other = network()
    other[9].bias.data += torch.tensor([5.0, 0.0, 0.0])
    for model, teacher, name in ((plain, None, "a"), (taught, Teacher(other, Distillation()), "b")):
        (tmp_path / name).mkdir()
        trained(tmp_path / name, model, teacher)
    share = [model(torch.zeros(1, 3, 8, 8)).softmax(1)[0, 0].item() for model in (plain.eval(), taught.eval())]
    assert share[1] > share[0] + 0.1
