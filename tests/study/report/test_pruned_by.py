"""What the stages of a route say of the config that it had: the settings in which routes are compared."""

from itertools import combinations

import pytest
from support import tiny_classification, tiny_study
from support.fabricated_study import a_row, a_step

from classify.regimes import RETRAINING
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES
from study.report.claims.pruned_by import pruned_by
from study.report.routes import group_routes
from study.report.rows import StageResult
from training.files import canonical


def facts_of(planned, folder):
    """Pipeline -> the settings that its finished stages would record."""
    rows = [a_row(r.pipeline, r.seed, [a_step(s.kind, s.id) for s in r.stages]) for r in planned]
    stages = {s.id: StageResult(s.kind, s.kind, {"settings": dict(s.settings)}) for r in planned for s in r.stages}
    return {label: how.facts for label, how in pruned_by(group_routes(rows), stages, folder).items()}


def detection(folder, *overrides):
    _, planned = tiny_study.tiny(f"pipelines=[{', '.join(PIPELINES)}]", *overrides)
    return facts_of(planned, folder)


def classification(folder, **changes):
    _, planned = tiny_classification.tiny({"pipelines": [*CLASSIFIER_PIPELINES], "prune.method": "random", **changes})
    return facts_of(planned, folder)


def apart(one, other):
    """Pipeline -> the settings in which two studies differ."""
    return {
        name: {key for key in one[name].keys() | other[name].keys() if one[name].get(key) != other[name].get(key)}
        for name in one
    }


def routes_with(found, key):
    return {name for name, keys in found.items() if key in keys}


@pytest.mark.parametrize("overrides", [(), ("detector.budget=same_compute", "detector.retrain=lr_rewind")])
def test_what_routes_change_by_themselves_sets_none_apart(tmp_path, overrides):
    for first, second in combinations(detection(tmp_path, *overrides).values(), 2):
        common = first.keys() & second.keys()
        assert not {key: (first[key], second[key]) for key in common if first[key] != second[key]}


def test_a_distilled_classifier_differs_from_one_that_is_not(tmp_path):
    found = apart(classification(tmp_path), classification(tmp_path, **{"classifier.distill": {"weight": 0.5}}))
    assert found == {name: {"classifier.distill"} if name == "fine_tune" else set() for name in CLASSIFIER_PIPELINES}


def test_a_distilled_detector_differs_from_one_that_is_not(tmp_path):
    found = apart(detection(tmp_path), detection(tmp_path, "detector.distill={features: 1.0}"))
    taught = {"prune_then_transfer", "prune_then_detect", "transfer_then_prune"}
    assert found == {name: {"detector.distill"} if name in taught else set() for name in PIPELINES}


@pytest.mark.parametrize(
    ("override", "key", "routes"),
    [
        ("detector.train.lr=0.5", "detector.train.lr", set(PIPELINES)),
        ("detector.fine_tune.lr=0.5", "detector.fine_tune.lr", {"transfer_then_prune"}),
        ("detector.prune_at=0.25", "detector.iterations before pruning", {"transfer_then_prune"}),
        ("detector.model.fpn_channels=8", "detector.model", set(PIPELINES) - {"detect_from_scratch"}),
        ("detector.model.fpn_channels=8", "detector.from_scratch", {"detect_from_scratch"}),
        ("detector.dataset.digits.train=9", "detector.dataset", set(PIPELINES)),
        ("classifier.scratch_b_cap=3", "classifier.scratch_b_cap", {"scratch_b", "scratch_b_fair"}),
    ],
)
def test_a_setting_is_told_of_the_routes_that_read_it(tmp_path, override, key, routes):
    assert routes_with(apart(detection(tmp_path), detection(tmp_path, override)), key) == routes


def test_facts_can_be_compared(tmp_path):
    assert canonical(dict(detection(tmp_path)["transfer_then_prune"]))
    assert classification(tmp_path)["fine_tune"]["classifier.retrain"] in RETRAINING


@pytest.mark.parametrize(
    ("guide", "pipeline", "expected"),
    [
        ({}, "scratch_e", "own"),
        ({"classifier": {"arch": "resnet56", "options": {}}}, "scratch_e", "other"),
        ({"classifier": {"dataset": {"options": {"n_train": 40}}}}, "scratch_e", "other"),
    ],
)
def test_a_design_says_whose_networks_it_follows(tmp_path, guide, pipeline, expected):
    guide = {"prune": {"method": "slimming", "ratio": 0.4}, **guide}
    changes = {"prune": {"method": "guided", "ratio": 0.4}, "guide": guide, "pipelines": [pipeline]}
    (found,) = facts_of(tiny_classification.tiny(changes)[1], tmp_path).values()
    assert found["guide"] == expected


@pytest.mark.parametrize(
    ("design", "expected"),
    [({}, "other"), ({"arch": "resnet56"}, "own"), ({"arch": "resnet56", "files": {"patterns": ["0123"]}}, "file")],
)
def test_a_guide_is_compared_with_the_design_where_no_other_network_is_trained(tmp_path, design, expected):
    """As behind detect_from_scratch, which trains no classifier of its own."""
    guide = StageResult("train_classifier", "a", {"settings": {"arch": "resnet56"}})
    prune = StageResult("prune", "b", {"settings": {"method": "guided", **design}})
    row = a_row("detect_from_scratch", 0, [a_step("train_classifier", "a"), a_step("prune", "b")])
    (found,) = pruned_by(group_routes([row]), {"a": guide, "b": prune}, tmp_path).values()
    assert found.facts["guide"] == expected
