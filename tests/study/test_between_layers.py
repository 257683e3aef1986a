"""ThiNet's and reconstruction's fine-tuning after each layer: trained, counted, resumed, refused elsewhere."""

from pathlib import Path

import pytest
import torch
from support.tiny_classification import tiny
from support.tiny_study import tiny as tiny_detection

import training.state
from study.plan.estimate import Estimator
from study.run.study import run_study
from study.stages.network import Network, read_weights
from training.stopping import Stopped

pytestmark = pytest.mark.slow  # trainings of whole studies

BETWEEN = {"epochs": 2, "lr": 0.01}
THINET = {"method": "thinet", "ratio": 0.5, "calibration": {"images": 20}}
CHANGES = {
    "pipelines": ["pruned", "scratch_e"],
    "variants": {
        "plain": {"prune": THINET},
        "thinet": {"prune": {**THINET, "between_layers": BETWEEN}},
        "reconstruction": {"prune": {**THINET, "method": "reconstruction", "between_layers": BETWEEN}},
    },
}
PRUNINGS = 4  # ResNet-10 has four blocks, whose inner convolution is narrowed


def finished(runs):
    """The prunings of a run, by variant, after as many runs as it takes; and how often it was stopped."""
    config, routes = tiny(CHANGES)
    stops, outcome = 0, None
    while outcome is None:
        try:
            _, outcome = run_study(config, Path("tiny.yaml"), routes, runs)
        except Stopped:
            stops += 1
    assert outcome.complete, outcome
    return {r.point["variant"]: r.evaluation for r in routes if r.pipeline == "pruned"}, stops


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return finished(runs)[0], runs


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_what_is_trained_after_each_layer_is_counted(whole, method):
    stages, runs = whole
    stage, config = stages[method], tiny(CHANGES)[0]
    result = stage.run(runs).read_result()
    dense = Network.load(stage.parents[0].run(runs)).costs()["macs"]
    assert result["images_seen"] == PRUNINGS * 2 * 48
    assert result["train_macs"] == 3 * dense * PRUNINGS * 2 * 48
    planned = Estimator(runs / "none", config.machine).estimate(stage)
    assert (planned.train_macs, planned.length) == (result["train_macs"], "4 x 2 epochs")
    assert not list(stage.run(runs).path.glob("checkpoint*"))
    assert stages["plain"].run(runs).read_result()["train_macs"] == 0


def test_the_weights_are_others_than_without_and_the_shape_is_the_same(whole):
    stages, runs = whole
    plain, trained = (read_weights(stages[name].run(runs).weights) for name in ("plain", "thinet"))
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in trained.items()}
    assert not torch.equal(plain["fc.weight"], trained["fc.weight"])


def test_it_trains_as_fine_tune_says_at_its_own_constant_rate(whole):
    settings = whole[0]["thinet"].settings["between_layers"]
    assert {k: settings[k] for k in ("epochs", "lr", "schedule", "batch_size")} == {
        **{"epochs": 2, "lr": 0.01, "schedule": "constant", "batch_size": 16}
    }


def test_of_a_shape_alone_nothing_is_trained():
    _, routes = tiny(CHANGES)
    # one row for plain and thinet, to whose scratch networks the variant makes no difference
    assert [r.point for r in routes if r.pipeline == "scratch_e"] == [{}, {"variant": "reconstruction"}]


def test_killed_and_resumed_it_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    stages, runs = whole
    asked = iter(range(100_000))
    monkeypatch.setattr(training.state, "stop_asked", lambda: next(asked) % 11 == 10)
    again, stops = finished(tmp_path)
    assert stops > 4
    for name in ("thinet", "reconstruction"):
        expected, found = (read_weights(s[name].run(r).weights) for s, r in ((stages, runs), (again, tmp_path)))
        assert all(torch.equal(value, found[key]) for key, value in expected.items()), name


@pytest.mark.parametrize(
    ("prune", "message"),
    [
        ({"method": "l1_filter", "between_layers": BETWEEN}, "l1_filter does not train after each layer; choose from"),
        ({**THINET, "between_layers": {"epochs": 2}}, "between_layers.lr"),
    ],
)
def test_what_does_not_fit_is_refused(prune, message):
    with pytest.raises(ValueError, match=message):
        tiny({"prune": prune})


def test_what_is_pruned_before_any_training_is_not_trained_between_layers():
    with pytest.raises(ValueError, match="what is pruned before any training is not trained"):
        tiny({"prune": {**THINET, "between_layers": BETWEEN}, "pipelines": ["prune_at_init"]})
    assert tiny({"prune": THINET, "pipelines": ["prune_at_init"]})


def test_a_detector_is_not_trained_between_layers():
    prune = "prune={method: thinet, ratio: 0.5, between_layers: {lr: 0.01}}"
    with pytest.raises(ValueError, match="a detector is not trained after each layer"):
        tiny_detection(prune, "pipelines=[transfer_then_prune]")
    assert tiny_detection(prune, "pipelines=[prune_then_transfer]")
