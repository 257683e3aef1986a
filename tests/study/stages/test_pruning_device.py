"""Pruning computes where the machine section says, and what it leaves is on the CPU."""

import pytest
import torch
from support.pruning_alone import HALF, SMALL, alone
from support.stages_alone import run_alone
from support.tiny_classification import train
from support.tiny_study import tiny as tiny_detection

import study.prune_one.prune
import study.stages.prune
import study.stages.prune_detector
from pruning.cut import Pruned
from pruning.plan import PruningPlan
from study.stages.prune import run_prune
from study.stages.prune_detector import run_prune_detector
from study.stages.stage import Context

# tensors without numbers: what is left on the CPU beside them fails, and no GPU is needed
DEVICE = "meta"


class Seen(Exception):
    """The devices of what a pruning was handed."""


@pytest.fixture
def spy(monkeypatch):
    """In the place of `prune`: raises the devices of the network, of its batch and of the calibration's loss."""

    def look(model, arch, groups, method, selection, *, batch, calibration=None, losses=None, **terms):
        parameters = {p.device.type for p in [*model.parameters(), *model.buffers()]}
        seen = next(iter((calibration or losses)(model))) if calibration or losses else batch
        raise Seen(parameters | {batch.device.type, seen.device.type})

    for module, name in ((study.stages.prune, "prune"), (study.prune_one.prune, "prune")):
        monkeypatch.setattr(module, name, look)
    monkeypatch.setattr(study.stages.prune_detector, "prune_detector", look)


def on(config, stage, runs):
    """The context of a stage on another device."""
    return Context(stage, runs, config.machine.model_copy(update={"device": DEVICE}), report=lambda *_, **__: None)


@pytest.mark.parametrize("method", ["l1_filter", "thinet", "taylor"])
def test_a_classifier_is_pruned_where_it_runs(method, tmp_path, request):
    changes = {"prune": {"method": method, "ratio": 0.5}, "pipelines": ["pruned"]}
    (route,) = train(tmp_path, changes).values()
    request.getfixturevalue("spy")
    config = tiny_detection()[0]
    with pytest.raises(Seen) as seen:
        run_prune(on(config, route.evaluation, tmp_path))
    assert seen.value.args == ({DEVICE},)


@pytest.mark.parametrize("method", ["l1_filter", "thinet"])
def test_a_network_alone_is_pruned_on_the_device_that_is_asked_for(method, tmp_path, spy):
    dataset = {"name": "digits", "options": {"n_train": 20}}
    with pytest.raises(Seen) as seen:
        alone(tmp_path, {**HALF, "method": method}, {**SMALL, "dataset": dataset}, device=DEVICE)
    assert seen.value.args == ({DEVICE},)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_a_detector_is_pruned_where_it_runs(tmp_path, request):
    config, routes = tiny_detection("pipelines=[transfer_then_prune]")
    run_alone(config, routes, tmp_path)
    request.getfixturevalue("spy")
    pruning = next(stage for step, stage in routes[0].steps if step == "prune_detector")
    with pytest.raises(Seen) as seen:
        run_prune_detector(on(config, pruning, tmp_path))
    assert seen.value.args == ({DEVICE},)


def test_what_a_pruning_leaves_comes_back_to_the_cpu():
    found = Pruned(torch.nn.Linear(2, 2), PruningPlan("x", {}), 0.0, {"weight": torch.ones(2, 2)}).cpu()
    assert {t.device.type for t in [*found.model.parameters(), *found.masks.values()]} == {"cpu"}
