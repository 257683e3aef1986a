"""Chains into stages: what is shared, what enters a hash, what is refused."""

import pytest
from support.tiny_study import DIGITS, tiny

from study.plan.load import load_study
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES
from study.plan.pipelines import all_stages, labels
from study.stages.stage import Stage
from training.strict_yaml import ConfigError


def kinds(route):
    return [s.kind for s in route.stages]


def by_name(routes):
    return {(r.pipeline, r.seed): r for r in routes}


def test_the_chains_of_the_paper():
    routes = by_name(tiny()[1])
    assert kinds(routes["unpruned", 0]) == ["train_classifier", "train_detector", "evaluate"]
    assert kinds(routes["prune_then_transfer", 0]) == [
        "train_classifier",
        "prune",
        "train_classifier",
        "train_detector",
        "evaluate",
    ]
    assert kinds(routes["transfer_then_prune", 0]) == [
        "train_classifier",
        "train_detector",
        "prune_detector",
        "train_detector",
        "evaluate",
    ]
    # widths by a fixed ratio need no trained network, so that scratch routes do not pay for one
    for name in ("scratch_e", "scratch_b"):
        assert kinds(routes[name, 0]) == ["prune", "train_classifier", "train_detector", "evaluate"]
    assert kinds(routes["detect_from_scratch", 0]) == ["prune", "train_detector", "evaluate"]


def test_a_selection_over_the_whole_network_needs_a_trained_one_for_its_shape():
    routes = by_name(tiny("prune.level=global")[1])
    assert kinds(routes["scratch_e", 0])[:3] == ["train_classifier", "prune", "train_classifier"]


def test_a_shape_goes_by_what_its_step_changes():
    """Untrained weights were ranked over the whole network, as the section asks for a share of each layer."""
    routes = by_name(tiny("pipelines={mine: [{shape: {level: global}}, scratch_e, detect]}")[1])
    assert kinds(routes["mine", 0])[:3] == ["train_classifier", "prune", "train_classifier"]


def test_a_method_that_acts_on_training_may_prune_what_was_trained_without_it():
    assert tiny("pipelines={mine: [classify, {prune: {method: slimming}}, fine_tune, detect]}")


def test_equal_stages_are_one_and_seeds_share_a_hash():
    routes = tiny("seeds=[0, 1]")[1]
    found = by_name(routes)
    assert found["unpruned", 0].stages[0] is found["transfer_then_prune", 0].stages[0]
    assert found["unpruned", 0].stages[0].hash == found["unpruned", 1].stages[0].hash
    assert found["unpruned", 0].stages[0].id != found["unpruned", 1].stages[0].id
    stages = all_stages(routes)
    assert len({s.id for s in stages}) == len(stages) == 2 * 20
    assert labels(routes)[found["unpruned", 0].stages[0].id] == "classify (seed 0, 3 routes)"


def test_detection_budgets_are_equal_and_pruning_inside_splits_them():
    def iterations(route):
        return sum(s.settings["train"]["iterations"] for s in route.stages if s.kind == "train_detector")

    assert {iterations(r) for r in tiny("detector.train.iterations=100")[1]} == {100}
    split = by_name(tiny("detector.train.iterations=100")[1])["transfer_then_prune", 0]
    trained = [s for s in split.stages if s.kind == "train_detector"]
    assert [s.settings["train"]["iterations"] for s in trained] == [70, 30]


def test_machine_matters_and_names_stay_out_of_the_hash():
    one = [s.id for s in all_stages(tiny()[1])]
    other = [s.id for s in all_stages(tiny("machine.jobs=4", "machine.precision=float32", "name=other")[1])]
    changed = [s.id for s in all_stages(tiny("classifier.train.lr=0.5")[1])]
    assert one == other
    assert not set(one) & set(changed) - {s for s in one if s.startswith(("prune-", "train_detector-", "evaluate-"))}
    assert one[0] != changed[0]


def test_a_changed_parent_changes_everything_behind_it():
    before = by_name(tiny()[1])["prune_then_transfer", 0].stages
    after = by_name(tiny("classifier.train.lr=0.5")[1])["prune_then_transfer", 0].stages
    assert not {s.id for s in before} & {s.id for s in after}


def test_where_files_are_does_not_matter():
    one = Stage("evaluate", {"data": {"sha256": "x", "paths": {"images": "/a"}}}, (), 0)
    two = Stage("evaluate", {"data": {"sha256": "x", "paths": {"images": "/b"}}}, (), 0)
    assert one.hash == two.hash


def test_a_data_set_that_may_be_downloaded_is_the_same_one():
    base = {"dataset": {"name": "mnist", "options": {"val": 100}}}
    fetched = {"dataset": {"name": "mnist", "options": {"val": 100, "download": True}}}
    assert Stage("train_classifier", base, (), 0).hash == Stage("train_classifier", fetched, (), 0).hash


def test_grid_points_make_routes_and_a_route_that_does_not_depend_on_them_is_one():
    routes = tiny("grid={prune.ratio: [0.25, 0.5]}", "pipelines=[unpruned, scratch_e]")[1]
    assert [(r.pipeline, dict(r.point)) for r in routes] == [
        ("unpruned", {}),
        ("scratch_e", {"prune.ratio": 0.25}),
        ("scratch_e", {"prune.ratio": 0.5}),
    ]
    assert routes[1].stages[0].id != routes[2].stages[0].id


def test_a_chain_of_ones_own_with_changes_of_a_step():
    routes = tiny("pipelines={mine: [classify, prune, scratch_e, {detect: {lr: 0.001}}]}")[1]
    assert kinds(routes[0]) == ["train_classifier", "prune", "train_classifier", "train_detector", "evaluate"]
    assert routes[0].stages[-2].settings["train"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pipelines=[unprund]", "unknown pipeline 'unprund'; did you mean 'unpruned'? known: unpruned"),
        ("pipelines={mine: [classify, cut, detect]}", "'cut' is not a step; known: classify"),
        ("pipelines={mine: [classify, prune]}", "a chain ends with a trained detector"),
        (
            "pipelines={mine: [prune, detect]}",
            "detect: comes after a network that was trained and pruned, here its shape alone",
        ),
        ("pipelines={mine: [classify, {detect: {iteration: 3}}]}", "iteration"),
        ("grid={prune.ratio: [0.5, 1.5]}", "grid prune.ratio=1.5: prune.ratio"),
        ("grid={prune.rati: [0.5]}", "prune.rati: unknown key; did you mean 'ratio'"),
        ("prune.target=resnet56-A", "already says what is removed"),
        ("grid={machine.precision: [float32, bfloat16]}", "grid.machine.precision: it is of the whole study"),
        ("grid={evaluate.margin: [0.5, 1]}", "grid.evaluate.margin: it is of the whole study"),
        ("variants={a: {machine: {compile: true}}}", "variants.a.machine: it is of the whole study"),
        ("variants={a: {grid: {prune.ratio: [0.3]}}}", "variants.a.grid: it is of the whole study"),
        ("variants={a: {evaluate: {latency_rounds: 3}}}", "variants.a.evaluate.latency_rounds: it is of the whole"),
        # the training before went by the method of the section, and by its ratio
        (
            "pipelines={mine: [classify_for_pruning, {prune: {method: slimming}}, fine_tune, detect]}",
            "prune: slimming acts on the training before it, which goes by the section `prune`",
        ),
        (
            "pipelines={mine: [classify, detect_before_pruning, {prune_detector: {method: slimming}},"
            " fine_tune_detector]}",
            "prune_detector: slimming acts on the training before it",
        ),
        ("pipelines={mine: [{shape: {method: slimming}}, scratch_e, detect]}", "shape: slimming acts on the training"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(override, message):
    with pytest.raises(ConfigError) as error:
        tiny(override)
    assert message in str(error.value)
    assert str(error.value).startswith(f"override {override!r}: ")


def test_a_target_must_be_of_the_networks_architecture(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"_base_: [{DIGITS.parents[1]}/classify/digits_resnet10.yaml, {DIGITS.parents[1]}/detect/digits_fpn.yaml]\n"
        "name: x\nseeds: [0]\npipelines: [unpruned]\nprune: {target: resnet56-A}\n"
    )
    with pytest.raises(ConfigError, match="'resnet56-A' is a shape of 'resnet56', not of"):
        load_study(path)


def test_a_pipeline_of_both_tables_has_one_colour_and_no_other_of_its_table_has_it():
    for name in PIPELINES.keys() & CLASSIFIER_PIPELINES.keys():
        assert PIPELINES[name].look.colour == CLASSIFIER_PIPELINES[name].look.colour
    for table in (PIPELINES, CLASSIFIER_PIPELINES):
        assert len({pipeline.look.colour for pipeline in table.values()}) == len(table)
