"""The learning rates of the regimes of retraining, step by step, against closed forms and PyTorch's schedulers."""

import math

import pytest
import torch
from support import small_training
from support.processes_training import Killed, images, network
from support.told import told
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from classify.regimes import BY_STEP, REGIMES, RETRAINING, get_regime
from classify.train import train_classifier

# 17 images in batches of 4: five steps an epoch, three epochs; the dense training has eight
EPOCHS, DENSE, STEPS, TOTAL = 3, 8, 5, 15
LR = 0.4
SETTINGS = small_training.SETTINGS | {"lr": LR, "epochs": EPOCHS, "checkpoint_minutes": 4, "report_every": 1}
pytestmark = pytest.mark.usefixtures("auto_is", "minute_a_step")


def trained(path, regime, kill_at=None, **changes):
    """The network after a retraining, and the rate of each step that this process took."""
    rates = {}

    def report(step, total, metrics):
        rates[step] = metrics["lr"]
        if step == kill_at:
            raise Killed

    model, told_it = network(), told({**SETTINGS, **changes})
    own = told_it["settings"].lr_schedule()
    told_it["schedule"] = get_regime(regime).schedule(own, DENSE - EPOCHS, EPOCHS)
    if kill_at is None:
        train_classifier(model, images(), **told_it, checkpoint=path, report=report)
    else:
        with pytest.raises(Killed):
            train_classifier(model, images(), **told_it, checkpoint=path, report=report)
    return model, [rates[step] for step in sorted(rates)]


def torch_rates(make, steps, of):
    """The rates that a scheduler of PyTorch's sets for the first `steps` steps of `of`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.9)
    scheduler = make(optimizer)
    found = []
    for _ in range(of):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found[-steps:]


@pytest.mark.parametrize("regime", ["lr_rewind", "weight_rewind"])
def test_the_last_epochs_of_the_dense_steps_once_more(tmp_path, regime):
    """The dense rate falls after 2/3 and 7/8 of 40 steps: a retraining of 15 begins at step 25."""
    _, found = trained(tmp_path / "c.pt", regime, schedule="step", milestones=(2 / 3, 7 / 8))
    whole = [LR if k < 40 * 2 / 3 else LR / 10 if k < 35 else LR / 100 for k in range(40)]
    assert found == pytest.approx(whole[25:], rel=1e-12)
    assert found[0] == LR and found[2] == pytest.approx(LR / 10) and found[-1] == pytest.approx(LR / 100)


def test_the_last_epochs_of_a_dense_cosine_are_pytorchs(tmp_path):
    _, found = trained(tmp_path / "c.pt", "lr_rewind", schedule="cosine")
    expected = torch_rates(lambda optimizer: CosineAnnealingLR(optimizer, DENSE * STEPS), TOTAL, DENSE * STEPS)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("regime", "rise", "up", "down"), [("cyclic", 0.1, 100, 100), ("one_cycle", 0.3, 25, 1e4)])
def test_one_cycle_is_pytorchs(tmp_path, regime, rise, up, down):
    """PyTorch counts from the first step to the last; with one step more both count to the end of the training."""

    def make(optimizer):
        first_down = (rise * TOTAL + 1) / (TOTAL + 1)
        return OneCycleLR(
            optimizer, LR, total_steps=TOTAL + 1, pct_start=first_down, div_factor=up, final_div_factor=down
        )

    _, found = trained(tmp_path / "c.pt", regime)
    assert found == pytest.approx(torch_rates(make, TOTAL, TOTAL), rel=1e-9)
    assert found[0] == pytest.approx(LR / up)


@pytest.mark.parametrize("regime", ["cyclic", "one_cycle"])
def test_one_cycle_in_closed_form(regime):
    cycle = REGIMES[regime].cycle
    for k in range(100):
        where = k / 100
        if where < cycle.rise:
            expected = cycle.first + (1 - cycle.first) * (1 - math.cos(math.pi * where / cycle.rise)) / 2
        else:
            falling = (where - cycle.rise) / (1 - cycle.rise)
            expected = cycle.last + (1 - cycle.last) * (1 + math.cos(math.pi * falling)) / 2
        assert cycle(where) == pytest.approx(expected, rel=1e-12)
    assert cycle(cycle.rise) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("regime", RETRAINING)
def test_killed_and_resumed_is_bit_equal(tmp_path, regime, optimizer):
    changes = {"optimizer": optimizer, "lr": 0.02}
    whole, rates = trained(tmp_path / "whole.pt", regime, **changes)
    trained(tmp_path / "killed.pt", regime, kill_at=7, **changes)
    resumed, rest = trained(tmp_path / "killed.pt", regime, **changes)
    assert rest == rates[4:]  # from the checkpoint of step 4 on
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_regime_is_a_step_or_stands_for_fine_tuning():
    assert RETRAINING == ("fine_tune", "lr_rewind", "weight_rewind", "cyclic", "one_cycle")
    assert set(BY_STEP) | set(RETRAINING) == set(REGIMES)
    assert set(BY_STEP) & set(RETRAINING) == {"fine_tune"}
