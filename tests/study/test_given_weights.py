"""Weights that a user gives: every route that should start from them does, and what is counted for them."""

import json

import pytest
import torch
from support.given_files import CLASSIFIER, given
from support.short_schedules import CHANNELS_EACH_STEP, EACH_STEP
from support.stages_alone import run_alone
from support.tiny_classification import run, tiny, train
from support.tiny_study import tiny as tiny_detection

import study.stages.classifier
from classify.train import TrainOutcome
from pruning.methods import METHODS
from study.plan.estimate import Estimator
from study.run.single import train_classifier_alone
from study.stages.network import read_weights
from training.files import file_digest
from training.strict_yaml import ConfigError

WITH_EFFECT = [name for name, method in METHODS.items() if method.training_effect is not None]


@pytest.fixture
def first_states(monkeypatch):
    """The state that each training of a classifier began with, by what the stage's settings say."""
    seen = []

    def spy(model, images, *, settings, **_):
        seen.append({name: tensor.cpu().clone() for name, tensor in model.state_dict().items()})
        return TrainOutcome(settings.epochs * len(images), seconds=0.0, final_loss=0.0)

    monkeypatch.setattr(study.stages.classifier, "train_classifier", spy)
    return seen


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


QUICK = ("soft_filter", "slimming", "rigl")  # of zeroed filters, of a penalty, of masks
EVERY_KIND = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in WITH_EFFECT]


@pytest.mark.parametrize("method", ["l1_filter", *EVERY_KIND])
def test_every_route_starts_from_the_weights_or_from_random_ones(tmp_path, first_states, method):
    weights = given(tmp_path / "mine.pt")
    found = train(
        tmp_path / "runs",
        {
            **CLASSIFIER,
            "classifier.weights": str(tmp_path / "mine.pt"),
            "prune": {"method": method, "ratio": 0.25, "options": (EACH_STEP | CHANNELS_EACH_STEP).get(method, {})},
            "pipelines": ["unpruned", "pruned", "fine_tune", "scratch_e"],
        },
    )
    runs = tmp_path / "runs"
    assert equal(read_weights(found["unpruned", 0].evaluation.run(runs).weights), weights)
    trained = found["fine_tune", 0].stages[0]
    if method in WITH_EFFECT:
        assert trained.settings["effect"]["method"] == method
        assert equal(first_states[0], weights)
    assert equal(read_weights(trained.run(runs).weights), weights)  # the spy does not train
    fine_tuned, scratch = (found[name, 0].evaluation for name in ("fine_tune", "scratch_e"))
    inherited = read_weights(fine_tuned.run(runs).weights)
    assert equal(inherited, read_weights(fine_tuned.parents[0].run(runs).weights))
    assert torch.equal(inherited["fc.bias"], weights["fc.bias"])  # of the head, which nothing narrows
    assert not torch.equal(read_weights(scratch.run(runs).weights)["fc.bias"], weights["fc.bias"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_begins_with_the_weights_wherever_a_route_trains_the_dense_network(tmp_path, method):
    given(tmp_path / "mine.pt")
    prune = {"method": method, "ratio": 0.5}
    if method == "guided":
        (tmp_path / "any.json").write_text("{}")
        prune["options"] = {"patterns": [str(tmp_path / "any.json")]}
    pipelines = ["unpruned", "pruned", "fine_tune", "scratch_e", "scratch_b", "scratch_b_fair"]
    _, routes = tiny({"classifier.weights": str(tmp_path / "mine.pt"), "prune": prune, "pipelines": pipelines})
    for route in routes:
        first = route.stages[0]
        if first.kind == "train_classifier":
            assert first.settings["weights"]["sha256"] == file_digest(tmp_path / "mine.pt")
        else:  # the architecture alone, for a training from scratch
            assert route.pipeline.startswith("scratch")
    trained = [r.stages[0] for r in routes if r.pipeline in ("pruned", "fine_tune")]
    assert all(("effect" in stage.settings) == (method in WITH_EFFECT) for stage in trained)


def test_sparsity_training_is_counted_on_top_of_the_training_that_the_weights_stand_for(tmp_path):
    given(tmp_path / "mine.pt")
    changes = {
        **CLASSIFIER,
        "classifier.weights": str(tmp_path / "mine.pt"),
        "prune": {"method": "slimming", "ratio": 0.25},
        "pipelines": {"mine": [{"classify_for_pruning": {"epochs": 1}}, "prune", "fine_tune"]},
    }
    found = run(tmp_path / "runs", changes)
    stage = found["mine", 0].stages[0]
    result = stage.run(tmp_path / "runs").read_result()
    assert result["epochs"] == 1
    assert result["train_macs"] == 3 * result["network"]["macs"] * (1 + 2) * 48
    assert result["given_weights"]["notes"] == [
        "slimming trained on from mine.pt; 2 epochs are counted for the training that made it, besides this one's"
    ]
    report = (tmp_path / "runs" / "tiny" / "report.md").read_text()
    assert "Given weights: slimming trained on from mine.pt" in report
    estimate = Estimator(tmp_path / "elsewhere", tiny(changes)[0].machine).estimate(stage)
    assert estimate.train_macs == result["train_macs"]


def test_a_detector_is_made_of_what_started_from_the_weights(tmp_path, first_states, monkeypatch):
    weights = given(tmp_path / "mine.pt")
    _, routes = tiny_detection(
        f"classifier.weights={tmp_path / 'mine.pt'}", "prune.method=slimming", "pipelines=[transfer_then_prune]"
    )
    first = routes[0].stages[0]
    assert first.settings["effect"]["method"] == "slimming"
    assert first.settings["weights"]["counted_epochs"] == 2
    run_alone(tiny()[0], _only(routes[0], first), tmp_path / "runs")
    assert equal(first_states[0], weights)


def _only(route, stage):
    """A route that ends with one of its stages."""
    return [type(route)(route.pipeline, route.point, route.seed, (("classify", stage),))]


def test_a_guide_starts_from_the_weights_and_says_so_where_it_cannot(tmp_path):
    given(tmp_path / "mine.pt")
    guide = {"prune": {"method": "slimming", "ratio": 0.25}}
    changes = {
        "classifier.weights": str(tmp_path / "mine.pt"),
        "prune": {"method": "guided"},
        "pipelines": ["scratch_e"],
    }
    _, routes = tiny({**changes, "guide": guide})
    assert routes[0].stages[0].settings["weights"]["counted_epochs"] == 2
    for change in ({"arch": "resnet18"}, {"dataset": {"name": "cifar10"}}):
        with pytest.raises(ConfigError, match=r"guide\.classifier: it changes .*set guide\.classifier\.weights: null"):
            tiny({**changes, "guide": {**guide, "classifier": change}})
    _, routes = tiny({**changes, "guide": {**guide, "classifier": {"arch": "resnet18", "weights": None}}})
    assert "weights" not in routes[0].stages[0].settings


def test_a_ticket_of_given_weights_is_refused_also_alone(tmp_path):
    given(tmp_path / "mine.pt")
    runs = tmp_path / "runs"
    changes = {"classifier.weights": str(tmp_path / "mine.pt"), "pipelines": ["pruned"], "machine.precision": "float32"}
    found = train(runs, changes)
    config = tmp_path / "one.yaml"
    settings = tiny()[0].classifier.model_dump(mode="json", exclude_unset=True)
    config.write_text(json.dumps({"classifier": settings, "regime": "ticket"}))
    with pytest.raises(ValueError, match="weights that are given have no beginning"):
        train_classifier_alone(config, [], pruned=found["pruned", 0].evaluation.run(runs).path, runs=runs)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("classifier.weights={other}", "was not pruned from these weights"),
        ("classifier.normalization={{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}", "which a pruned network keeps"),
        ("classifier.arch=resnet18", "is a pruned 'resnet10' with options"),
        ("classifier.options.width=0.25", "is a pruned 'resnet10' with options"),
        ("classifier.dataset.options.image_size=48", "has images of 48 pixels in 10 classes"),
    ],
)
def test_what_a_pruned_network_did_not_come_from_is_refused(tmp_path, override, message):
    runs = tmp_path / "runs"
    found = train(runs, {"pipelines": ["pruned"], "machine.precision": "float32"})
    given(tmp_path / "other.pt")
    config = tmp_path / "one.yaml"
    settings = tiny()[0].classifier.model_dump(mode="json", exclude_unset=True)
    config.write_text(json.dumps({"classifier": settings, "regime": "fine_tune"}))
    with pytest.raises(ValueError, match=message):
        train_classifier_alone(
            config,
            [override.format(other=tmp_path / "other.pt")],
            pruned=found["pruned", 0].evaluation.run(runs).path,
            runs=runs,
        )


def test_a_replaced_head_is_trained_from_the_other_weights(tmp_path, first_states):
    weights = given(tmp_path / "w.pt", classes=1000)
    changes = {
        **CLASSIFIER,
        "classifier.weights": str(tmp_path / "w.pt"),
        "classifier.replace_head": True,
        "pipelines": ["unpruned", "pruned"],
        "prune": {"method": "slimming", "ratio": 0.25},
    }
    found = train(tmp_path / "runs", changes)
    assert len(first_states) == 2  # with and without slimming
    for state in first_states:
        assert all(torch.equal(state[n], t) for n, t in weights.items() if not n.startswith("fc."))
        assert state["fc.weight"].shape[0] == 10
    result = found["unpruned", 0].evaluation.run(tmp_path / "runs").read_result()
    assert result["train_macs"] == 3 * result["network"]["macs"] * 2 * 48  # what is trained is what is counted
    assert result["given_weights"]["notes"] == [
        "the network was trained from w.pt; the training that made it is not counted",
        "the head (fc.weight, fc.bias) was drawn anew for 10 classes, as replace_head asks",
    ]
