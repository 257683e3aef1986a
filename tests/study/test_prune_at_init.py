"""Networks that are pruned before they are trained: what they start from, what is held, what is refused."""

import copy
import json
from pathlib import Path

import pytest
import torch
from support import tiny_classification, tiny_study

from pruning.masks import Masks
from pruning.methods import METHODS
from pruning.plan import PruningPlan
from study.run.study import run_study
from study.stages.classifier import starting_model
from study.stages.network import Network, read_weights
from study.stages.settings import TrainClassifier

pytestmark = pytest.mark.slow  # trainings of whole studies

BODY = "backbone.bottom_up.body."
CALIBRATED = {"calibration": {"images": 20}}
VARIANTS = {
    "snip": {"prune": {"method": "snip", "ratio": 0.8, **CALIBRATED}},
    "snip_shuffled": {"prune": {"method": "snip", "ratio": 0.8, "options": {"shuffle": True}, **CALIBRATED}},
    "synflow": {"prune": {"method": "synflow", "ratio": 0.8, "options": {"rounds": 10}}},
    "magnitude": {"prune": {"method": "magnitude", "ratio": 0.8}},
    "l1": {"prune": {"method": "l1_filter", "ratio": 0.5}},
    "random": {"prune": {"method": "random", "ratio": 0.5}},
    "taylor": {"prune": {"method": "taylor", "ratio": 0.5, **CALIBRATED}},
}
STRUCTURED = ("l1", "random", "taylor")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    changes = {"pipelines": ["unpruned", "prune_at_init"], "variants": copy.deepcopy(VARIANTS), "prune": {}}
    return tiny_classification.run(runs, changes), runs


def pruned_and_trained(done, variant):
    found, runs = done
    pruned, trained = found["prune_at_init", variant, 0].stages
    return pruned, trained, runs


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_starts_from_what_is_left_of_the_dense_trainings_own_start(done, variant):
    pruned, trained, runs = pruned_and_trained(done, variant)
    assert pruned.kind == "prune" and not pruned.parents and trained.parents == (pruned,)
    unpruned = done[0]["unpruned", 0].evaluation
    dense = starting_model(unpruned, Network.load(unpruned.run(runs)), runs).state_dict()
    network = Network.load(trained.run(runs))
    start = starting_model(trained, network, runs).state_dict()
    assert (network.masks is None) == (variant in STRUCTURED)
    if network.masks is not None:
        for name, value in dense.items():
            assert torch.equal(start[name], value * network.masks.get(name, torch.ones(()))), name
    else:
        keep = PruningPlan.load(trained.run(runs).plan).keep
        assert keep
        for name, kept in keep.items():
            rows = dense[f"{name}.weight"][list(kept)]
            assert torch.equal(start[f"{name}.weight"], rows) or start[f"{name}.weight"].shape[1] < rows.shape[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_for_the_dense_epochs_and_pays_for_them_alone(done, variant):
    found, runs = done
    _, trained, _ = pruned_and_trained(done, variant)
    result = trained.run(runs).read_result()
    dense = found["unpruned", 0].evaluation.run(runs).read_result()
    assert result["epochs"] == dense["epochs"] == 2
    assert result["train_macs"] == 3 * result["network"]["macs"] * result["images_seen"]
    comparison = json.loads((runs / "tiny" / "comparison.json").read_text())
    (row,) = [row for row in comparison["rows"] if row["point"].get("variant") == variant]
    assert row["train_macs"] == result["train_macs"] < dense["train_macs"]
    assert "pruned_top1" not in row  # before any training there is nothing to measure


def test_masks_are_held_and_linear_layers_have_them(done):
    for variant in VARIANTS.keys() - STRUCTURED:
        pruned, trained, runs = pruned_and_trained(done, variant)
        assert pruned.run(runs).masks.read_bytes() == trained.run(runs).masks.read_bytes()
        before, after = read_weights(pruned.run(runs).weights), read_weights(trained.run(runs).weights)
        masks = Masks.load(trained.run(runs).masks)
        assert ("fc.weight" in masks) == (variant != "magnitude")
        for name, mask in masks.items():
            assert not bool(after[name][~mask].any())
            assert not torch.equal(after[name], before[name])


def test_the_shuffled_control_has_the_same_share_of_each_layer(done):
    masks = {}
    for variant in ("snip", "snip_shuffled"):
        _, trained, runs = pruned_and_trained(done, variant)
        masks[variant] = Masks.load(trained.run(runs).masks)
    assert masks["snip"].densities() == masks["snip_shuffled"].densities()
    assert not torch.equal(masks["snip"]["conv1.weight"], masks["snip_shuffled"]["conv1.weight"])


def test_it_is_never_distilled():
    """It has no trained weights to keep, as networks from scratch have none."""
    _, routes = tiny_classification.tiny({"pipelines": ["fine_tune", "prune_at_init"], "classifier.distill": {}})
    trained = {r.pipeline: r.evaluation.read(TrainClassifier) for r in routes}
    assert trained["fine_tune"].distill is not None
    assert trained["prune_at_init"].distill is None


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.training_effect is not None])
def test_what_acts_on_a_training_before_is_refused(method):
    with pytest.raises(ValueError, match=f"'{method}' acts on the training before it prunes, and here is none; choose"):
        tiny_classification.tiny({"pipelines": ["prune_at_init"], "prune": {"method": method, "ratio": 0.2}})


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (["classify", "prune", "from_init"], "from_init: comes after a network that was pruned before any training"),
        (["prune_at_init", "fine_tune"], "fine_tune: comes after a network that was trained and pruned"),
        (["prune_at_init", "ticket"], "ticket: comes after a network that was trained and pruned"),
        (["classify", "prune_at_init", "from_init"], "prune_at_init: comes after nothing"),
        (["prune_at_init"], "a chain ends with a trained classifier"),
    ],
)
def test_chains_that_make_no_sense_are_refused(chain, message):
    with pytest.raises(ValueError, match=message):
        tiny_classification.tiny({"pipelines": {"mine": chain}})


@pytest.mark.parametrize("prune", ["{method: snip, ratio: 0.8}", "{method: l1_filter, ratio: 0.5}"])
def test_it_is_transferred_to_a_detector(prune, tmp_path):
    config, routes = tiny_study.tiny(f"prune={prune}", "pipelines=[unpruned, prune_at_init]")
    _, outcome = run_study(config, Path("a.yaml"), routes, tmp_path)
    assert outcome.complete
    (route,) = [r for r in routes if r.pipeline == "prune_at_init"]
    assert [s.kind for s in route.stages] == ["prune", "train_classifier", "train_detector", "evaluate"]
    pruned, classifier, detector, _ = route.stages
    assert not detector.settings.get("recalibrate")
    weights = read_weights(detector.run(tmp_path).weights)
    network = Network.load(detector.run(tmp_path))
    assert network.plan == Network.load(pruned.run(tmp_path)).plan
    for name, keep in network.plan.keep.items():
        if f"{BODY}{name}.weight" in weights:
            assert len(weights[f"{BODY}{name}.weight"]) == len(keep)
    held = [name for name in network.masks or {} if f"{BODY}{name}" in weights]
    assert bool(held) == ("snip" in prune)
    for name in held:
        assert not bool(weights[f"{BODY}{name}"][~network.masks[name]].any())
    start = read_weights(classifier.run(tmp_path).weights)
    moved = weights[f"{BODY}conv1.weight"] - start["conv1.weight"]  # in four iterations at a small rate
    assert float(moved.abs().max()) < 0.1 * float(start["conv1.weight"].abs().max())
