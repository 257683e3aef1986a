"""What the training settings do to the arithmetic: optimisers, decay, parts of a batch, schedules, precision."""

import pytest
import torch
from support.processes_training import images, network
from support.told import told
from torch import nn

from classify.optimizers import make_optimizer, parameter_groups
from classify.train import train_classifier
from training.device import settle
from training.options import changed

SETTINGS = {
    "epochs": 1,
    "batch_size": 17,
    "lr": 0.1,
    "mean": (0.5,) * 3,
    "std": (0.25,) * 3,
    "report_every": 1,
    "precision": "float32",
}


def without_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_decay_is_on_everything_or_on_weights_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert [len(g["params"]) for g in parameter_groups(model, 0.1, norm_weight_decay=True)] == [10]
    decayed, spared = parameter_groups(model, 0.1, norm_weight_decay=False)
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0
    assert [p.dim() for p in decayed["params"]] == [4, 2]
    found = {id(p) for group in (decayed, spared) for p in group["params"]}
    assert len(spared["params"]) == 8 and found == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(("name", "expected"), [("sgd", 1 - 0.1 * (0.5 + 0.2)), ("adam", 1 - 0.1)])
def test_first_steps_by_hand(name, expected):
    # SGD: lr * (gradient + decay * weight); Adam's first step is lr * sign(gradient)
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = make_optimizer(model, told(SETTINGS, optimizer=name, weight_decay=0.2)["settings"])
    model.weight.grad = torch.full_like(model.weight, 0.5)
    optimizer.step()
    assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_parts_of_a_batch_add_up_to_it(tmp_path):
    # without BatchNorm the parts, of 3, 3, 3, 4 and 4 images, have the gradient of the whole
    weights = []
    for accumulate in (1, 5):
        model = without_norm()
        parts = told(SETTINGS, accumulate=accumulate, label_smoothing=0.1)
        train_classifier(model, images(), **parts, checkpoint=tmp_path / f"{accumulate}.pt")
        weights.append(model[0].weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)
    assert not torch.equal(weights[0], without_norm()[0].weight)


def test_batch_norm_sees_the_parts(tmp_path):
    seen = []
    model = network()
    model[1].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    train_classifier(model, images(), **told(SETTINGS, accumulate=5), checkpoint=tmp_path / "c.pt")
    assert seen == [3, 3, 4, 3, 4]
    assert int(model[1].num_batches_tracked) == 5


@pytest.mark.parametrize("epochs", [10, 100])  # 10 // 3 * 3 = 9: the released code's rule drops a third time in epoch 9
def test_three_thirds_have_two_drops(tmp_path, epochs):
    rates = []
    train_classifier(
        without_norm(),
        images(),
        **told(SETTINGS, epochs=epochs, milestones=(1 / 3, 2 / 3)),
        checkpoint=tmp_path / "c.pt",
        report=lambda step, total, metrics: rates.append(metrics["lr"]),
    )
    first, second = {10: (4, 7), 100: (34, 67)}[epochs]  # the first epochs at or after a third and two thirds
    expected = [0.1] * first + [0.01] * (second - first) + [0.001] * (epochs - second)
    assert rates == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_named_by_its_own_step(tmp_path):
    # noticed only when something is reported or saved, here after step 6
    model = without_norm()
    steep = told(SETTINGS, epochs=1, batch_size=3, lr=1e30, report_every=100)
    with pytest.raises(FloatingPointError, match=r"step 2: the loss is (nan|inf)"):
        train_classifier(model, images(), **steep, checkpoint=tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lamb"}, "^train.optimizer: 'lamb' does not fit; expected: one of sgd, adam$"),
        ({"accumulate": 0}, r"^train.accumulate: 0 does not fit; expected: whole number \(at least 1\)$"),
        ({"accumulate": 18}, r"^train.accumulate: 18 is outside 1\.\.batch_size=17$"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        changed(told(SETTINGS)["settings"], change, "train")


def test_float16_is_for_gpus(tmp_path):
    assert settle("float16", "cuda").dtype is torch.float16
    with pytest.raises(ValueError, match="float16"):
        train_classifier(network(), images(), **told(SETTINGS, precision="float16"), checkpoint=tmp_path / "c")
