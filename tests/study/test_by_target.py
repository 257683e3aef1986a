"""Pruning to a share of the dense network's cost in a study: planned, trained and pruned by the same share."""

import pytest
import torch
from support.tiny_classification import run, tiny
from support.tiny_study import tiny as tiny_detection
from torch import nn

from study.config.load import ConfigError
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pipelines import all_stages
from study.run.study import run_study
from study.stages.network import load_model

pytestmark = pytest.mark.slow  # trainings of whole studies

HALF = {"method": "l1_filter", "target_macs": 0.5}
WIDE = {"classifier.options": {"width": 0.5}}  # whose single channels are below 1 %


def reached(stage, runs):
    """What a pruning's result says of its target, checked against the costs that stand beside it."""
    result = stage.run(runs).read_result()
    found = result["achieved"]["reached"]
    quantity = found["quantity"]
    assert found["left"] == pytest.approx(result["network"][quantity] / result["dense"][quantity], abs=1e-9)
    return found


@pytest.mark.parametrize(
    ("prune", "words"),
    [
        ({**HALF, "ratio": 0.5}, "prune.*target_macs: the ratio of it is searched"),
        ({**HALF, "target_params": 0.5}, "one ratio cannot meet both"),
        ({**HALF, "target_macs": 1.5}, "prune.target_macs"),
        ({"target": "resnet56-A", "target_macs": 0.5}, "already says what is removed; drop target_macs"),
        ({"method": "uniform", "options": {"budget": {"macs": 0.5}}, "target_macs": 0.5}, "`budget` decides"),
        ({"method": "structure_selection", "options": {"zeros_only": True}, "target_params": 0.5}, "brings to zero"),
    ],
)
def test_amounts_that_contradict_each_other_are_refused(prune, words):
    with pytest.raises(ConfigError, match=words):
        tiny({"prune": prune})


def test_a_null_ratio_takes_back_that_of_a_base():
    config, _ = tiny({"prune": {**HALF, "ratio": None}})
    assert config.prune.selection().cost_target == ("macs", 0.5)


def test_a_grid_of_targets_shares_what_does_not_depend_on_them():
    grid = {"prune.target_macs": [0.75, 0.5]}
    for method, trainings in (("soft_filter", 2), ("l1_filter", 1)):
        _, routes = tiny({"prune": {"method": method}, "pipelines": ["pruned"], "grid": grid})
        assert len({route.steps[0][1].id for route in routes}) == trainings
        assert [route.point["prune.target_macs"] for route in routes] == [0.75, 0.5]


@pytest.mark.parametrize("method", ["l1_filter", "soft_filter", "thinet"])
def test_the_dry_run_knows_the_network_ahead(tmp_path, method):
    config, routes = tiny({**WIDE, "prune": {"method": method, "target_macs": 0.6}, "pipelines": ["scratch_e"]})
    shape, training = (stage for _, stage in routes[0].steps)
    estimator = Estimator(tmp_path, config.machine)
    foresee(all_stages(routes), estimator, tmp_path / "tiny.yaml")
    assert not shape.parents  # nothing is trained for the shape
    found, dense = estimator.estimate(training), estimator._cost(estimator.network(shape).dense())
    assert not found.at_most and found.macs / dense[1] == pytest.approx(0.6, abs=0.012)


@pytest.mark.parametrize(
    ("prune", "words"),
    [
        ({**HALF, "skip": ["layer[123].*"]}, "l1_filter comes no nearer to target_macs=0.5"),
        ({**HALF, "method": "taylor", "level": "global", "skip": ["layer[123].*"]}, "taylor comes no nearer"),
        ({**HALF, "skip": ["layer9"]}, "no layer matches 'layer9'"),
    ],
)
def test_what_no_ratio_meets_is_refused_before_training(tmp_path, prune, words):
    config, routes = tiny({"prune": prune, "pipelines": ["fine_tune"]})
    with pytest.raises(ConfigError, match=words):
        foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")


@pytest.mark.parametrize(
    "prune",
    [
        {"method": "taylor", "level": "global"},
        {"method": "slimming"},
        {"method": "magnitude"},
        {"method": "lottery", "options": {"exact": False}},
    ],
    ids=lambda prune: prune["method"],
)
def test_shares_that_training_decides_pass_the_checks_ahead(tmp_path, prune):
    config, routes = tiny({"prune": {**prune, "target_params": 0.6}, "pipelines": ["fine_tune"]})
    seen = foresee(all_stages(routes), Estimator(tmp_path, config.machine), tmp_path / "tiny.yaml")
    assert seen.detectors == 0 and not (tmp_path / "runs").exists()


def test_soft_training_zeroes_what_the_pruning_cuts(tmp_path):
    prune = {"method": "soft_filter", "target_macs": 0.6, "skip": ["conv1"]}
    (route,) = run(tmp_path, {"prune": prune, "pipelines": ["pruned"]}).values()
    trained, pruned = (load_model(stage.run(tmp_path)) for _, stage in route.steps)
    assert reached(route.evaluation, tmp_path)["left"] == pytest.approx(0.6, abs=0.03)
    for name, layer in trained.named_modules():
        if isinstance(layer, nn.Conv2d):
            zeroed = int((layer.weight.flatten(1).norm(dim=1) == 0).sum())
            assert zeroed == len(layer.weight) - len(pruned.get_parameter(f"{name}.weight"))
            assert (zeroed > 0) == (name != "conv1")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(pruned.eval()(x), trained.eval()(x), rtol=1e-4, atol=1e-4)


def test_variants_meet_their_targets_and_a_step_takes_the_place_of_the_files_ratio(tmp_path):
    twice = ["classify_for_pruning", {"prune": {"target_params": 0.8}}, "fine_tune", {"prune": {"target_macs": 0.5}}]
    changes = {
        **WIDE,
        "variants": {
            "taylor": {"prune": {"method": "taylor", "level": "global", "scope": "all", "ratio": 0.5}},
            "l1": {"prune": {"method": "l1_filter", "ratio": 0.5}},
        },
        "pipelines": {"twice": [*twice, "fine_tune"]},
    }
    for route in run(tmp_path, changes).values():
        first, second = (reached(stage, tmp_path) for step, stage in route.steps if step == "prune")
        assert first["quantity"] == "params" and first["left"] == pytest.approx(0.8, abs=0.01)
        assert second["quantity"] == "macs" and second["left"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scope", ["backbone", "backbone+fpn"])
def test_inside_a_detector_the_share_is_the_classifiers(tmp_path, scope):
    """As in a classifier, and as the dry run has it, whatever the size of the detector's images."""
    config, routes = tiny_detection(
        "classifier.options.width=0.5",
        "pipelines=[transfer_then_prune]",
        "prune={method: l1_filter, ratio: null, target_macs: 0.6}",
        f"detector.prune_scope={scope}",
    )
    (route,) = routes
    estimator = Estimator(tmp_path, config.machine)
    pruning = next(stage for step, stage in route.steps if step == "prune_detector")
    planned = estimator.network(pruning)
    _, outcome = run_study(config, tmp_path / "tiny.yaml", routes, tmp_path)
    assert outcome.complete, outcome
    assert reached(pruning, tmp_path)["left"] == pytest.approx(0.6, abs=0.01)
    kept = pruning.run(tmp_path).read_result()["network"]
    assert (kept["params"], kept["macs"]) == estimator._cost(planned.backbone())


def test_a_detectors_training_zeroes_what_the_pruning_cuts(tmp_path):
    config, routes = tiny_detection(
        "pipelines=[transfer_then_prune]",
        "prune={method: soft_filter, ratio: null, target_macs: 0.7}",
        "detector.model.norm=BN",
    )
    _, outcome = run_study(config, tmp_path / "tiny.yaml", routes, tmp_path)
    assert outcome.complete, outcome
    pruning = next(stage for step, stage in routes[0].steps if step == "prune_detector")
    assert reached(pruning, tmp_path)["left"] == pytest.approx(0.7, abs=0.03)
