"""The classifier's training loop: data order, resuming, effects, refusals; and the accuracy it reports."""

import pytest
import torch
from support import published
from support.small_training import SETTINGS, images, network
from support.told import told
from torch import nn

from classify.evaluate import evaluate_classifier
from classify.regimes import REGIMES, budget_epochs, get_regime
from classify.train import train_classifier
from pruning.methods import Effect
from training.checkpoint import load_checkpoint, save_checkpoint
from training.schedule import lr_schedule

pytestmark = pytest.mark.usefixtures("auto_is", "minute_a_step")


class Momentum(Effect):
    """State that only an exact resume brings back: a running sum of the learning rates, added to the gradients."""

    def __init__(self, model):
        self.model = model
        self.sum = torch.zeros(())
        self.calls = []

    def at_start(self):
        self.calls.append("start")

    def after_backward(self):
        for parameter in self.model.parameters():
            parameter.grad.add_(self.sum, alpha=0.01)

    def after_step(self, lr):
        self.sum = self.sum + lr

    def after_epoch(self):
        self.calls.append("epoch")

    def state_dict(self):
        return {"sum": self.sum}

    def load_state_dict(self, state):
        self.sum = state["sum"]


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, total, metrics):
        if step == 5:  # in the middle of the second epoch; the checkpoint is of step 4
            raise Killed

    always = told(SETTINGS, report_every=1)
    whole = network()
    first = Momentum(whole)
    outcome = train_classifier(whole, images(), **always, checkpoint=tmp_path / "a.pt", effects=[first])
    killed = network()
    with pytest.raises(Killed):
        train_classifier(
            killed,
            images(),
            **always,
            checkpoint=tmp_path / "b.pt",
            report=kill,
            effects=[Momentum(killed)],
        )
    resumed = network()
    second = Momentum(resumed)
    again = train_classifier(resumed, images(), **always, checkpoint=tmp_path / "b.pt", effects=[second])
    assert first.calls == ["start", "epoch", "epoch", "epoch"]
    assert second.calls == ["epoch", "epoch"]
    assert outcome.images_seen == again.images_seen == 30
    assert outcome.final_loss == again.final_loss
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(network()[0].weight, whole[0].weight)


def test_another_seed_sees_another_order(tmp_path):
    losses = set()
    for seed in (0, 1):
        outcome = train_classifier(network(), images(), **told(SETTINGS, seed=seed), checkpoint=tmp_path / f"{seed}.pt")
        losses.add(outcome.final_loss)
    assert len(losses) == 2


def test_reports_have_the_schedule_and_the_validation_after_each_epoch(tmp_path):
    reports = []
    train_classifier(
        network(),
        images(),
        **told(SETTINGS, epochs=4, milestones=(0.5, 0.75), report_every=1),
        checkpoint=tmp_path / "c.pt",
        validation=images(5),
        report=lambda step, total, metrics: reports.append((step, total, metrics)),
    )
    assert [step for step, *_ in reports] == list(range(1, 13))  # 4 epochs of ceil(10 / 4) = 3 steps
    assert [m["lr"] for *_, m in reports] == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3)
    assert [step for step, _, m in reports if "val_accuracy" in m] == [3, 6, 9, 12]


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path):
    model = network()
    model[5].bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan"):
        train_classifier(model, images(), **told(SETTINGS), checkpoint=tmp_path / "c.pt")


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    with pytest.raises(ValueError, match="batch_size=11 is larger than the training set of 10 images"):
        train_classifier(network(), images(), **told(SETTINGS, batch_size=11), checkpoint=path)
    train_classifier(network(), images(), **told(SETTINGS, epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match="total=3, not 9"):
        train_classifier(network(), images(), **told(SETTINGS), checkpoint=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.01}, r"a training with lr=0\.1, not lr=0\.01; ask for the same to go on with it, or delete"),
        ({"weight_decay": 0.1}, r"a training with weight_decay by default, not weight_decay=0\.1"),
    ],
)
def test_a_finished_training_does_not_stand_for_one_with_other_settings(tmp_path, change, words):
    path = tmp_path / "c.pt"
    train_classifier(network(), images(), **told(SETTINGS, epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match=words):
        train_classifier(network(), images(), **told(SETTINGS, epochs=1, **change), checkpoint=path)


def test_a_checkpoint_without_settings_is_gone_on_with(tmp_path):
    """One from before they were kept."""
    path = tmp_path / "c.pt"
    train_classifier(network(), images(), **told(SETTINGS, epochs=1), checkpoint=path)
    state = load_checkpoint(path, required=("settings",))
    del state["settings"]
    save_checkpoint(path, state)
    assert train_classifier(network(), images(), **told(SETTINGS, epochs=1), checkpoint=path).images_seen == 10


def test_a_last_batch_of_one_image_is_refused_before_the_first_step_where_a_layer_cannot_take_it(tmp_path):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.BatchNorm1d(3))
    path, one_epoch = tmp_path / "c.pt", {**SETTINGS, "epochs": 1}
    with pytest.raises(ValueError, match=r"batch_size=4 \(accumulate=1\) leaves a single image at the end of 9 images"):
        train_classifier(flat, images(9), **told(one_epoch), checkpoint=path)
    with pytest.raises(ValueError, match=r"accumulate=2\) leaves a single image"):
        train_classifier(flat, images(10), **told(one_epoch, accumulate=2), checkpoint=path)
    assert not path.exists()
    assert train_classifier(flat, images(10), **told(one_epoch), checkpoint=path).images_seen == 10
    assert train_classifier(network(), images(9), **told(one_epoch), checkpoint=tmp_path / "d.pt").images_seen == 9


class Perfect(nn.Module):
    """Knows the label from the first pixel."""

    def __init__(self, offset=0):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.offset = offset

    def forward(self, x):
        labels = ((x[:, 0, 0, 0] * 255).round().long() + self.offset) % 3
        return nn.functional.one_hot(labels, 3).float()


def test_accuracy_is_over_samples_on_a_ragged_last_batch():
    data = images(10)
    data.images[:, 0, 0, 0] = data.labels.to(torch.uint8)
    arguments = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "batch_size": 4}
    scores = evaluate_classifier(Perfect(), data, **arguments)
    assert (scores.top1, scores.top5, scores.n) == (100.0, 100.0, 10)
    assert scores.correct.tolist() == [True] * 10
    data.images[[2, 9], 0, 0, 0] += 1  # two images now look like another class; the second is in the last batch
    wrong = evaluate_classifier(Perfect(), data, **arguments)
    assert wrong.top1 == 80.0 and torch.nonzero(~wrong.correct).flatten().tolist() == [2, 9]
    data.images[[2, 9], 0, 0, 0] -= 1
    assert evaluate_classifier(Perfect(offset=1), data, **arguments).top1 == 0.0
    # cross-entropy of logits (1, 0, 0) at the right class: log(e + 2) - 1
    assert scores.loss == pytest.approx(0.5514447)


def test_schedules_written_out():
    step = lr_schedule("step", milestones=(0.5, 0.75))
    assert [step(k / 4) for k in range(4)] == pytest.approx([1, 1, 0.1, 0.01])
    warm = lr_schedule("constant", warmup=0.5, warmup_factor=0.0)
    assert [warm(k / 4) for k in range(4)] == pytest.approx([0, 0.5, 1, 1])
    with pytest.raises(ValueError, match="must ascend"):
        lr_schedule("step", milestones=(0.7, 0.5))
    with pytest.raises(ValueError, match="not one of step, cosine, constant"):
        lr_schedule("linear")


def test_regimes_and_their_budgets():
    assert set(REGIMES) >= {"base", "fine_tune", "scratch_e", "scratch_b"}
    macs = {"dense_macs": published.CIFAR10["resnet56"][1], "pruned_macs": published.TARGETS["resnet56-B"][1]}
    assert budget_epochs(get_regime("scratch_e"), 160, **macs) == 160
    assert budget_epochs(get_regime("scratch_b"), 160, **macs) == 220
    assert budget_epochs(get_regime("scratch_b"), 90, dense_macs=4, pruned_macs=1, cap=2) == 180
    with pytest.raises(ValueError, match="unknown regime 'scratch_z'; known: base"):
        get_regime("scratch_z")
