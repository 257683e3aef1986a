"""A training that is killed in the middle of an epoch ends with the bits of one that is not, whatever a method adds."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from support import small_training
from support.processes_training import Killed, group_fisher, images, network
from support.told import told

from classify.distillation import Distillation, Teacher
from classify.train import train_classifier
from pruning.masked_training import HoldMasks
from pruning.masks import Masks
from pruning.methods import Request, get_method
from pruning.methods.slimming import SlimmingEffect, SlimmingOptions
from pruning.methods.soft_filter import SoftFilterEffect, filters_to_keep, find_filters
from pruning.select import Selection

# 17 images in batches of 4: five steps an epoch
SETTINGS = small_training.SETTINGS | {"checkpoint_minutes": 4, "report_every": 1}
pytestmark = pytest.mark.usefixtures("auto_is", "minute_a_step")


def hold_masks(model):
    mask = torch.ones_like(model[4].weight, dtype=torch.bool)
    mask[:, ::2] = False
    return HoldMasks(model, Masks({"4.weight": mask}))


def soft_filters(model, ratio):
    widths = {name: len(model.get_parameter(f"{name}.weight")) for name in find_filters(model)}
    return SoftFilterEffect(model, {name: filters_to_keep(width, ratio) for name, width in widths.items()})


def method(name, **options):
    """The training effect of a method that removes half of the weights, changing at every third step."""
    entry = get_method(name)
    asked = Request([], Selection(0.5), entry.options(every=3, **options), seed=0)
    return lambda model: entry.training_effect(model, asked)


CASES = {
    "plain": (SETTINGS, None),
    "adam in parts": ({**SETTINGS, "optimizer": "adam", "lr": 0.01, "accumulate": 2}, None),
    "masked": (SETTINGS, hold_masks),
    "slimming": (SETTINGS, lambda model: SlimmingEffect(model, SlimmingOptions(s=0.01))),
    "soft filter": (SETTINGS, lambda model: soft_filters(model, 0.3)),
    "group fisher": (SETTINGS, group_fisher),
    "group fisher in parts": ({**SETTINGS, "accumulate": 2}, group_fisher),
    "gradual": (SETTINGS, method("gradual_magnitude")),
    "rigl": (SETTINGS, method("rigl", end=1.0)),
    "rigl, adam": ({**SETTINGS, "optimizer": "adam", "lr": 0.01}, method("rigl", end=1.0)),
    "distilled": (SETTINGS, None, True),
    "distilled, masked, in parts": ({**SETTINGS, "accumulate": 2}, hold_masks, True),
}


def teacher():
    """The network with other answers than the one that is trained."""
    unpruned = network()
    unpruned[9].bias.data += 1 + torch.arange(3)
    return Teacher(unpruned, Distillation())


def trained(path, settings, make_effect, taught=False, kill_at=None, snapshots=()):
    """The model after training, or after being killed when step `kill_at` is reported."""

    def report(step, total, metrics):
        if step == kill_at:
            raise Killed

    model = network()
    effects = [] if make_effect is None else [make_effect(model)]
    arguments = {**told(settings), "checkpoint": path, "report": report, "effects": effects}
    arguments["snapshots"] = dict(snapshots)
    arguments["teacher"] = teacher() if taught else None
    if kill_at is None:
        train_classifier(model, images(), **arguments)
    else:
        with pytest.raises(Killed):
            train_classifier(model, images(), **arguments)
    return model


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory):
    """The model of a case after an uninterrupted training, which is the same for every kill."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def whole(case, answer):
        return trained(folder / f"{case} {answer}.pt", *CASES[case])

    return whole


def kills():
    """Of every case one in mid-epoch; some before the first checkpoint and as an epoch ends."""
    for case in CASES:
        yield pytest.param(case, 7)
        quick = case in ("plain", "soft filter", "group fisher in parts", "rigl, adam", "distilled, masked, in parts")
        yield from (pytest.param(case, at, marks=[] if quick else [pytest.mark.slow]) for at in (2, 5))


@pytest.mark.parametrize(("case", "kill_at"), kills())
def test_killed_and_resumed_is_bit_equal(tmp_path, whole_of, auto_is, case, kill_at):
    whole = whole_of(case, auto_is)
    trained(tmp_path / "killed.pt", *CASES[case], kill_at=kill_at)
    resumed = trained(tmp_path / "killed.pt", *CASES[case])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(("at", "kill_at"), [(0, 2), (3, 3), (3, 7), (8, 7)])
def test_a_resumed_training_has_its_snapshot(tmp_path, at, kill_at):
    whole, killed, same = (tmp_path / f"{name}.safetensors" for name in ("whole", "killed", "same"))
    trained(tmp_path / "whole.pt", SETTINGS, None, snapshots={whole: at, same: at})
    trained(tmp_path / "killed.pt", SETTINGS, None, kill_at=kill_at, snapshots={killed: at})
    trained(tmp_path / "killed.pt", SETTINGS, None, snapshots={killed: at})
    assert whole.read_bytes() == same.read_bytes()
    assert whole.read_bytes() == killed.read_bytes()
    assert int(load_file(killed)["1.num_batches_tracked"]) == at
    if at == 0:
        assert torch.equal(load_file(killed)["0.weight"], network()[0].weight)


def test_a_snapshot_that_is_gone_is_missed(tmp_path):
    path, snapshot = tmp_path / "c.pt", tmp_path / "snapshot.safetensors"
    trained(path, SETTINGS, None, kill_at=7, snapshots={snapshot: 3})
    snapshot.unlink()
    with pytest.raises(ValueError, match="the snapshot of step 3 is gone and the checkpoint is of step 4"):
        trained(path, SETTINGS, None, snapshots={snapshot: 3})


def test_a_snapshot_is_of_a_step_of_the_training(tmp_path):
    with pytest.raises(ValueError, match=r"snapshot_at=16 is outside 0\.\.15"):
        trained(tmp_path / "c.pt", SETTINGS, None, snapshots={tmp_path / "s": 16})


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    trained(path, SETTINGS, None, kill_at=7)
    other = network()
    other[9] = torch.nn.Linear(8, 5)
    message = r"c\.pt: a checkpoint of another architecture: 9\.weight is \(3, 8\) there, \(5, 8\) here; 9\.bias"
    with pytest.raises(ValueError, match=message):
        train_classifier(other, images(), **told(SETTINGS), checkpoint=path)
    with pytest.raises(ValueError, match="algorithm=sgd, not adam"):
        trained(path, {**SETTINGS, "optimizer": "adam"}, None)
    with pytest.raises(ValueError, match="seed=0, not 1"):
        trained(path, {**SETTINGS, "seed": 1}, None)
