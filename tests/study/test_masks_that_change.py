"""Methods that remove weights while a network trains, through a study: what they leave and what is refused."""

import json

import pytest
import torch
from support.short_schedules import EACH_STEP
from support.tiny_classification import run, tiny
from support.tiny_study import DIGITS
from support.tiny_study import tiny as tiny_detection

from pruning.masks import Masks
from study.config.load import ConfigError
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pipelines import all_stages
from study.run.study import run_study
from study.stages.network import Network, load_model, read_weights

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("method", EACH_STEP)]
BODY = "backbone.bottom_up.body."


def asked(method, **options):
    return {"prune": {"method": method, "ratio": 0.5, "options": {**EACH_STEP[method], **options}}}


def test_the_training_leaves_what_pruning_takes_and_fine_tuning_holds(tmp_path, method):
    routes = run(tmp_path, {**asked(method), "pipelines": ["unpruned", "fine_tune", "scratch_e", "ticket"]})
    (_, trained), (_, pruned), (_, tuned) = routes["fine_tune", 0].steps
    runs = [stage.run(tmp_path) for stage in (trained, pruned, tuned)]
    left = Masks.load(runs[0].masks)
    assert left.density() == pytest.approx(0.5, abs=0.001)
    for directory in runs:
        assert directory.masks.read_bytes() == runs[0].masks.read_bytes()
        model = load_model(directory)
        assert all(not bool(model.get_parameter(name)[~mask].any()) for name, mask in left.items())
        assert directory.read_result()["network"]["density"] == left.density()
    before, after = (read_weights(directory.weights) for directory in runs[:2])
    assert all(torch.equal(before[name], after[name]) for name in before)
    results = [directory.read_result() for directory in runs]
    achieved = results[1]["achieved"]
    assert achieved["asked"] <= achieved["removed"] <= achieved["asked"] + len(left)  # layers round, each for itself
    assert results[0]["metrics"]["test_top1"] == results[1]["metrics"]["test_top1"]
    # the weights went while it trained: it counts as the training of the unpruned network
    unpruned = routes["unpruned", 0].evaluation.run(tmp_path).read_result()
    assert results[0]["train_macs"] == unpruned["train_macs"] > results[2]["train_macs"]
    assert results[0]["network"]["macs"] < unpruned["network"]["macs"]
    for regime in ("scratch_e", "ticket"):
        assert routes[regime, 0].evaluation.run(tmp_path).masks.read_bytes() == runs[0].masks.read_bytes()


def test_a_training_too_short_for_the_schedule_is_refused_in_the_dry_run(tmp_path, method):
    """Six steps: 48 images in batches of 16, twice."""
    config, routes = tiny({**asked(method, every=100), "pipelines": ["fine_tune"]})
    with pytest.raises(ConfigError, match=rf"{method}: a training of 6 steps .*lower prune\.options\.every"):
        foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")


def test_a_detector_trained_too_short_is_refused_in_the_dry_run(tmp_path, method):
    config, routes = tiny_detection(
        f"prune={json.dumps(asked(method, every=9)['prune'])}", "pipelines=[transfer_then_prune]"
    )
    with pytest.raises(ConfigError, match=rf"{method}: a training of [1-3] steps"):
        foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")


@pytest.mark.slow
def test_inside_a_detector_the_weights_go_while_it_trains(tmp_path, method):
    prune, routes_asked = json.dumps(asked(method)["prune"]), "pipelines=[prune_then_transfer, transfer_then_prune]"
    overrides = [f"prune={prune}", routes_asked, "detector.prune_at=0.5", "machine.precision=float32"]
    config, routes = tiny_detection(*overrides)
    _, outcome = run_study(config, DIGITS, routes, tmp_path)
    assert outcome.complete, outcome.failed
    steps = {route.pipeline: dict(route.steps) for route in routes}
    classified = steps["transfer_then_prune"]["classify"].run(tmp_path)  # whole: the detector's training removes
    assert Network.load(classified).masks is None
    runs = [
        steps["transfer_then_prune"][name].run(tmp_path)
        for name in ("detect_before_pruning", "prune_detector", "fine_tune_detector")
    ]
    before, after = (read_weights(directory.weights) for directory in runs[:2])
    assert all(torch.equal(before[name], after[name]) for name in before)
    transferred = [steps["prune_then_transfer"][name].run(tmp_path) for name in ("classify_for_pruning", "detect")]
    for directories in (runs, transferred):
        masks = Masks.load(directories[0].masks)
        assert masks.density() == pytest.approx(0.5, abs=0.001)
        for directory in directories:
            assert directory.masks.read_bytes() == directories[0].masks.read_bytes()
        weights = read_weights(directories[-1].weights)
        here = {name: mask for name, mask in masks.items() if f"{BODY}{name}" in weights}
        assert here and all(not bool(weights[f"{BODY}{name}"][~mask].any()) for name, mask in here.items())
    removed = runs[1].read_result()["achieved"]
    assert removed["asked"] <= removed["removed"] <= removed["asked"] + len(masks)
