"""Retraining at the rates of the dense training: what it starts from, how long it is, which trainings serve it."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from support.tiny_classification import run, tiny
from support.tiny_study import tiny as tiny_detection

import training.state
from classify.regimes import RETRAINING
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.plan.pipelines import all_stages
from study.run.study import run_study
from study.stages.classifier import starting_model
from study.stages.network import Network, read_weights
from training.stopping import Stopped

pytestmark = pytest.mark.slow  # trainings of whole studies

# 48 images in batches of 16: three steps an epoch; the dense rate falls after 6 and 9 of 12 steps
CHANGES = {
    "classifier.train": {"epochs": 4, "batch_size": 16, "lr": 0.08},
    "classifier.fine_tune": {"epochs": 2, "lr": 0.003, "schedule": "constant", "weight_decay": 0.001},
    "grid": {"classifier.retrain": list(RETRAINING)},
    "pipelines": ["unpruned", "fine_tune", "scratch_b_fair"],
}
VARIANTS = {
    "l1": {"prune": {"method": "l1_filter", "ratio": 0.5}},
    "random": {"prune": {"method": "random", "ratio": 0.5}},
    "masks": {"prune": {"method": "magnitude", "ratio": 0.6, "level": "global"}},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return run(runs, {**CHANGES, "variants": VARIANTS}), runs


def rates(directory):
    rows = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    return [row["lr"] for row in rows if "lr" in row]


@pytest.mark.parametrize("regime", RETRAINING)
def test_all_have_the_epochs_of_fine_tuning_and_its_other_settings(done, regime):
    found, runs = done
    stage = found["fine_tune", "l1", regime, 0].evaluation
    result = stage.run(runs).read_result()
    assert stage.settings["regime"] == regime
    assert (result["epochs"], result["images_seen"]) == (2, 96)
    assert result["train_macs"] == 96 * 3 * result["network"]["macs"]
    assert stage.settings["train"]["weight_decay"] == 0.001
    # of the last step of each epoch
    expected = {"fine_tune": [0.003, 0.003], "lr_rewind": [0.008, 0.0008], "weight_rewind": [0.008, 0.0008]}
    assert rates(stage.run(runs)) == pytest.approx(expected.get(regime, rates(stage.run(runs))))
    assert max(rates(stage.run(runs))) == pytest.approx(max(expected.get(regime, [0.075])), rel=0.15)


@pytest.mark.parametrize("variant", ["l1", "masks"])
def test_weight_rewind_starts_from_the_dense_weights_of_its_epoch(done, variant):
    found, runs = done
    stage = found["fine_tune", variant, "weight_rewind", 0].evaluation
    directory, dense = stage.run(runs), stage.parents[0].parents[0].run(runs)
    start = starting_model(stage, Network.load(directory), runs).state_dict()
    kept, trained = read_weights(dense.snapshot_of(2)), read_weights(dense.weights)
    assert int(kept["bn1.num_batches_tracked"]) == 6  # of 12 steps
    assert not torch.equal(kept["layer1.0.conv1.weight"], trained["layer1.0.conv1.weight"])
    if variant == "l1":
        keep = list(PruningPlan.load(directory.plan).keep["layer1.0.conv1"])
        assert len(keep) == 4
        assert torch.equal(start["layer1.0.conv1.weight"], kept["layer1.0.conv1.weight"][keep])
    else:
        masks = Masks.load(directory.masks)
        for name, value in start.items():
            assert torch.equal(value, kept[name] * masks[name] if name in masks else kept[name]), name


@pytest.mark.parametrize("regime", RETRAINING)
def test_masks_are_held(done, regime):
    found, runs = done
    directory = found["fine_tune", "masks", regime, 0].evaluation.run(runs)
    weights = read_weights(directory.weights)
    for name, mask in Masks.load(directory.masks).items():
        assert not bool(weights[name][~mask].any()) and bool(weights[name][mask].any())


def test_others_start_from_the_weights_that_pruning_left(done):
    found, runs = done
    for regime in set(RETRAINING) - {"weight_rewind"}:
        stage = found["fine_tune", "l1", regime, 0].evaluation
        left = read_weights(stage.parents[0].run(runs).weights)
        start = starting_model(stage, Network.load(stage.run(runs)), runs).state_dict()
        assert all(torch.equal(value, left[name]) for name, value in start.items()), regime


def test_one_dense_training_serves_the_whole_grid(done):
    found, _ = done
    dense = [s for s in all_stages(list(found.values())) if s.settings.get("regime") == "base"]
    assert [s.settings["snapshot_epochs"] for s in dense] == [[2]]
    # what the regime makes no difference to is one row
    assert {key for key in found if key[0] == "unpruned"} == {("unpruned", 0)}
    assert {key for key in found if key[0] == "scratch_b_fair"} == {("scratch_b_fair", name, 0) for name in VARIANTS}


def test_a_grid_of_lengths_keeps_the_weights_of_each(done):
    grid = {"classifier.retrain": ["lr_rewind", "weight_rewind"], "classifier.fine_tune.epochs": [1, 3]}
    _, routes = tiny({**CHANGES, "grid": grid})
    (dense,) = [s for s in all_stages(routes) if s.settings.get("regime") == "base"]
    assert dense.settings["snapshot_epochs"] == [1, 3]
    tuned = [route.evaluation for route in routes if route.pipeline == "fine_tune"]
    assert [s.settings["rewound_to"] for s in tuned] == [3, 1, 3, 1]


def test_where_nothing_goes_back_nothing_is_kept_and_no_name_changes():
    plain, (*_, rewound) = (tiny({"pipelines": ["fine_tune"], **c})[1] for c in ({}, {"classifier.retrain": "cyclic"}))
    assert rewound.stages[1].id == plain[0].stages[1].id != rewound.evaluation.id
    assert "snapshot_epochs" not in rewound.stages[0].settings


def test_the_report_tells_the_regimes_apart_and_answers_the_statements_on_them(done):
    _, runs = done
    rows = json.loads((runs / "tiny" / "comparison.json").read_text())["rows"]
    points = {row["point"].get("classifier.retrain") for row in rows if row["pipeline"] == "fine_tune"}
    assert points == set(RETRAINING)
    assert "classifier.retrain = lr\\_rewind" in (runs / "tiny" / "report.md").read_text()
    with (runs / "tiny" / "claims.csv").open() as file:
        claims = {line["statement"]: line["place"] for line in csv.DictReader(file)}
    sides = "classifier.retrain lr_rewind) > fine_tune (classifier.retrain fine_tune)"
    assert f"fine_tune ({sides}" in claims
    random = "fine_tune (random, classifier.retrain cyclic) ≥ fine_tune (l1_filter, classifier.retrain fine_tune)"
    assert claims[random] == "variant = random / l1"


def test_killed_and_resumed_it_ends_with_the_same_bits(done, tmp_path, monkeypatch):
    found, runs = done
    config, routes = tiny({**CHANGES, "variants": {"l1": VARIANTS["l1"]}})
    asked = iter(range(10_000))
    monkeypatch.setattr(training.state, "stop_asked", lambda: next(asked) % 7 == 6)
    stops, outcome = 0, None
    while outcome is None:
        try:
            _, outcome = run_study(config, Path("tiny.yaml"), routes, tmp_path)
        except Stopped:
            stops += 1
    assert outcome.complete and stops > 5
    for route in routes:
        if route.pipeline == "fine_tune":
            whole = found["fine_tune", "l1", route.point["classifier.retrain"], 0].evaluation
            for name, value in read_weights(whole.run(runs).weights).items():
                assert torch.equal(value, read_weights(route.evaluation.run(tmp_path).weights)[name]), (route, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier.retrain": "rewind"}, r"retrain: .*choose from|known.*lr_rewind"),
        ({"classifier.retrain": "lr_rewind", "classifier.fine_tune.epochs": 9}, "the last 9 epochs of a training are"),
        (
            {
                "classifier.retrain": "weight_rewind",
                "pipelines": {"mine": ["classify", "prune", {"fine_tune": {"epochs": 2}}]},
            },
            "goes back to the weights of epoch 0, which the dense training does not keep",
        ),
        ({"pipelines": {"mine": ["classify", "prune", "lr_rewind"]}}, "'lr_rewind' is not a step"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(changes)


def detector_steps(*overrides):
    _, routes = tiny_detection("pipelines=[transfer_then_prune]", "detector.train.iterations=8", *overrides)
    return [dict(route.steps) for route in routes]


def test_a_detector_is_retrained_at_the_rates_before_its_pruning():
    grid = "grid={detector.retrain: [fine_tune, lr_rewind, cyclic, one_cycle]}"
    found = detector_steps(grid, "detector.fine_tune={lr: 0.0001, schedule: cosine}", "detector.prune_at=0.75")
    tuned = [steps["fine_tune_detector"].settings for steps in found]
    before = found[0]["detect_before_pruning"].settings["train"]
    assert [s.get("retrain") for s in tuned] == [None, "lr_rewind", "cyclic", "one_cycle"]
    assert [s.get("rewound_to") for s in tuned] == [None, 4, None, None]  # the last 2 of 6 iterations
    assert [s["train"]["iterations"] for s in tuned] == [2] * 4
    assert tuned[0]["train"]["lr"] == 0.0001
    assert all((s["train"]["lr"], s["train"]["schedule"]) == (before["lr"], before["schedule"]) for s in tuned[1:])


def test_a_detectors_rates_are_those_of_its_last_iterations(tmp_path):
    overrides = ["detector.retrain=lr_rewind", "detector.prune_at=0.75", "detector.train.warmup=0"]
    config, routes = tiny_detection("pipelines=[transfer_then_prune]", "detector.train.iterations=8", *overrides)
    _, outcome = run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert outcome.complete, outcome
    stage = dict(routes[0].steps)["fine_tune_detector"]
    dense = stage.settings["train"]
    assert dense["schedule"] == "cosine"
    last = dense["lr"] * (1 + math.cos(math.pi * 5 / 6)) / 2  # the last of the six iterations before pruning
    assert rates(stage.run(tmp_path))[-1] == pytest.approx(last)
    assert stage.run(tmp_path).read_result()["iterations"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["detector.retrain=weight_rewind"], "retrain: .*weight_rewind"),
        (["detector.retrain=lr_rewind", "detector.prune_at=0.25"], "the last 6 iterations of a training are asked for"),
    ],
)
def test_what_a_detector_cannot_go_back_to_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        detector_steps(*overrides)
