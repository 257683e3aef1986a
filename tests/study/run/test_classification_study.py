"""A study without a detector: what its routes start from, how long they train, what is held, what is compared."""

import csv
import json
from pathlib import Path

import pytest
import torch
from support.tiny_classification import run, tiny, train

from classify.models import build
from pruning.design.pattern import Pattern
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.run.study import run_study
from study.stages.classifier import starting_model
from study.stages.network import Network, load_model, read_weights
from training.strict_yaml import ConfigError

SLIMMING = {"prune": {"method": "slimming", "ratio": 0.25, "level": "global"}}
L1 = {"prune": {"method": "l1_filter", "ratio": 0.5}}


@pytest.fixture(scope="module")
def unstructured(tmp_path_factory):
    """All routes of a network that loses 60 % of its convolution weights; tickets go back to iteration 2."""
    runs = tmp_path_factory.mktemp("runs")
    return run(runs, {"classifier.rewind": 2}), runs


def last(found, runs, *key):
    return found[key].evaluation.run(runs)


def test_every_route_has_a_row_with_its_accuracy_and_cost(unstructured):
    found, runs = unstructured
    comparison = json.loads((runs / "tiny" / "comparison.json").read_text())
    rows = {row["pipeline"]: row for row in comparison["rows"]}
    assert comparison["task"] == "classification"
    assert list(rows) == [key[0] for key in found]
    assert {row["dense_macs"] for row in rows.values()} == {rows["unpruned"]["macs"]}
    assert rows["fine_tune"]["macs"] < rows["unpruned"]["macs"]
    result = last(found, runs, "fine_tune", 0).read_result()
    assert rows["fine_tune"]["top1"] == result["metrics"]["test_top1"]
    assert rows["fine_tune"]["pruned_top1"] == rows["pruned"]["top1"]
    assert 0 <= rows["fine_tune"]["recalibrated_top1"] <= 100
    assert "pruned_top1" not in rows["unpruned"]
    with (runs / "tiny" / "comparison.csv").open() as file:
        assert [line["pipeline"] for line in csv.DictReader(file)] == list(rows)


def test_removed_weights_stay_zero_through_every_regime(unstructured):
    found, runs = unstructured
    for pipeline in ("pruned", "fine_tune", "scratch_e", "scratch_b", "ticket"):
        directory = last(found, runs, pipeline, 0)
        masks, weights = Masks.load(directory.masks), read_weights(directory.weights)
        assert masks.density() == pytest.approx(0.4, abs=0.001)
        for name, mask in masks.items():
            assert bool((weights[name][~mask] == 0).all()), (pipeline, name)
            assert bool((weights[name][mask] != 0).any()), (pipeline, name)


def test_the_same_weights_are_left_in_every_route(unstructured):
    found, runs = unstructured
    files = {last(found, runs, p, 0).masks.read_bytes() for p in ("pruned", "fine_tune", "scratch_e", "ticket")}
    assert len(files) == 1


def test_scratch_b_counts_the_pruned_network(unstructured):
    """The released script of the study compares two dense ones; 60 % fewer weights are more than 2 epochs."""
    found, runs = unstructured
    results = {p: last(found, runs, p, 0).read_result() for p in ("unpruned", "scratch_b", "scratch_b_fair")}
    dense, pruned = results["unpruned"]["network"]["macs"], results["scratch_b"]["network"]["macs"]
    assert results["scratch_b"]["epochs"] == 2 * dense // pruned == 3
    assert results["scratch_b_fair"]["epochs"] == results["scratch_b"]["epochs"] + 1


def test_a_ticket_starts_from_the_dense_networks_weights_of_iteration_k(unstructured):
    found, runs = unstructured
    route = found["ticket", 0]
    stage = route.evaluation
    network = Network.load(stage.run(runs))
    start = starting_model(stage, network, runs).state_dict()
    kept = read_weights(route.stages[0].run(runs).snapshot)
    trained = read_weights(route.stages[0].run(runs).weights)
    for name, value in start.items():
        mask = network.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        torch.testing.assert_close(value, kept[name] * mask, rtol=0, atol=0)
    assert not torch.equal(kept["layer1.0.conv1.weight"], trained["layer1.0.conv1.weight"])


def test_without_an_iteration_a_ticket_goes_back_to_the_start(tmp_path):
    found = train(tmp_path, {"pipelines": ["ticket"], "prune": {"method": "lottery", "options": {"unit": "filters"}}})
    route = found["ticket", 0]
    network = Network.load(route.evaluation.run(tmp_path))
    start = starting_model(route.evaluation, network, tmp_path).state_dict()
    torch.manual_seed(0)
    dense = network.dense().build().state_dict()
    keep = list(PruningPlan.load(route.evaluation.run(tmp_path).plan).keep["layer1.0.conv1"])
    assert len(keep) == 4
    torch.testing.assert_close(start["layer1.0.conv1.weight"], dense["layer1.0.conv1.weight"][keep], rtol=0, atol=0)


def test_tickets_in_rounds_remove_a_share_of_what_is_left(tmp_path):
    chain = ["classify", "prune", "ticket", "prune", "ticket"]
    changes = {"pipelines": {"rounds": chain}, "prune": {"method": "lottery", "ratio": 0.5}}
    route = train(tmp_path, changes)["rounds", 0]
    prunings = [s for s in route.stages if s.kind == "prune"]
    first, second = (Masks.load(s.run(tmp_path).masks) for s in prunings)
    assert (first.density(), second.density()) == pytest.approx((0.5, 0.25), abs=0.001)
    assert all(bool((mask <= first[name]).all()) for name, mask in second.items())


def test_a_second_pruning_of_single_weights_needs_a_method_that_knows_the_first(tmp_path):
    config, routes = tiny({"pipelines": {"twice": ["classify", "prune", "fine_tune", "prune", "fine_tune"]}})
    with pytest.raises(ConfigError, match=r"tiny\.yaml: prune: magnitude cannot prune .*; lottery can"):
        run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert not list(tmp_path.glob("*/seed0/result.json"))  # nothing was trained for it


def test_a_design_follows_the_pattern_of_networks_of_another_architecture(tmp_path):
    changes = {
        "pipelines": ["scratch_e"],
        "prune": {"method": "guided", "options": {"budget": {"macs": 0.6}}},
        "guide": {**SLIMMING, "classifier": {"arch": "resnet18", "train": {"epochs": 1}}, "seeds": [0, 1]},
    }
    route = train(tmp_path, changes)["scratch_e", 0]
    design = next(s for s in route.stages if s.kind == "prune" and "arch" in s.settings)
    assert [parent.settings["method"] for parent in design.parents] == ["slimming", "slimming"]
    assert [s.settings["arch"] for s in route.stages if s.kind == "train_classifier"] == ["resnet18"] * 2 + ["resnet10"]
    pattern = Pattern.from_json(design.run(tmp_path).pattern.read_text())
    assert pattern.sources == 2
    result = route.evaluation.run(tmp_path).read_result()
    dense = Network.load(route.evaluation.run(tmp_path)).dense().costs()
    assert result["network"]["macs"] == pytest.approx(0.6 * dense["macs"], rel=0.1)
    assert load_model(route.evaluation.run(tmp_path)) is not None


def test_weights_that_are_given_are_not_trained_but_counted_as_if_they_were(tmp_path):
    torch.manual_seed(7)
    file = tmp_path / "mine.pt"
    model = build("resnet10", 10, {"width": 0.125})
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, file)
    changes = {"classifier.weights": str(file), "pipelines": ["unpruned", "fine_tune"], "prune": L1["prune"]}
    found = run(tmp_path / "runs", changes)
    dense = found["unpruned", 0].evaluation.run(tmp_path / "runs")
    torch.testing.assert_close(read_weights(dense.weights), dict(model.state_dict()), rtol=0, atol=0)
    result = dense.read_result()
    assert result["train_macs"] == 3 * result["network"]["macs"] * 2 * 48
    elsewhere = tmp_path / "other.pt"
    elsewhere.write_bytes(file.read_bytes())
    again = tiny({**changes, "classifier.weights": str(elsewhere)})[1]
    assert again[0].evaluation.id == found["unpruned", 0].evaluation.id
    elsewhere.write_bytes(b"other")
    assert tiny({**changes, "classifier.weights": str(elsewhere)})[1][0].evaluation.id != again[0].evaluation.id


def test_variants_are_points_and_the_dense_network_is_one_row():
    _, routes = tiny({"variants": {"l1": L1, "slim": SLIMMING}, "pipelines": ["unpruned", "fine_tune"]})
    assert [(r.pipeline, dict(r.point)) for r in routes] == [
        ("unpruned", {}),
        ("fine_tune", {"variant": "l1"}),
        ("fine_tune", {"variant": "slim"}),
    ]
    plain, slim = routes[1].stages[0], routes[2].stages[0]
    assert plain is routes[0].stages[0]
    assert slim.settings["effect"]["method"] == "slimming"


def test_equal_routes_of_some_variants_are_one_row_and_a_variant_that_differs_keeps_its_own():
    variants = {"a": L1, "b": SLIMMING, "slow": {**L1, "classifier": {"train": {"lr": 0.01}}}}
    _, routes = tiny({"variants": variants, "pipelines": ["unpruned"]})
    assert [dict(r.point) for r in routes] == [{}, {"variant": "slow"}]


def test_a_variant_may_have_routes_and_a_network_of_its_own():
    variants = {"a": {**L1, "pipelines": ["scratch_e"]}, "b": {**L1, "classifier": {"arch": "resnet18"}}}
    _, routes = tiny({"variants": variants, "pipelines": ["unpruned", "scratch_e"]})
    assert [(r.pipeline, r.point["variant"]) for r in routes] == [
        ("scratch_e", "a"),
        ("unpruned", "b"),
        ("scratch_e", "b"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipelines": ["prune_then_transfer"]}, "of a study without `detector`; known: unpruned, pruned, fine_tune"),
        ({"pipelines": {"mine": ["classify", "detect"]}}, "there is no `detector` section"),
        ({"pipelines": {"mine": ["shape", "ticket"]}, **{"prune": L1["prune"]}}, "its shape alone is known"),
        ({"pipelines": {"mine": ["shape"]}, "prune": L1["prune"]}, "ends with a trained classifier"),
        ({"variants": {"a": {"classifier": {"lr": 1}}}}, "variant=a: classifier.lr: unknown key"),
        ({"grid": {"prune.ratio": []}}, "grid.prune.ratio has no value"),
        ({"classifier.weights": "absent.pt"}, "absent.pt: there is no such file"),
        ({"guide": SLIMMING}, "only method 'guided' follows patterns"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError) as error:  # a ConfigError is one
        tiny(changes)
    assert message in str(error.value)
    assert issubclass(ConfigError, ValueError)
