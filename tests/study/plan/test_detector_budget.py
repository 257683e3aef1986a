"""Budgets of detectors: iterations, compute of the detector, compute of the whole route."""

import pytest
from support.stages_alone import run_alone
from support.tiny_study import DIGITS, tiny

from detect.budgets import Costs, Length, remaining, stretched, with_spare
from study.plan.estimate import Estimator
from study.run.single import train_detector_alone


def test_the_arithmetic():
    half, whole = Length(iterations=100, batch_size=2, whole=10), 10 * 2 * 30 + 400  # of the dense detector; classifier
    assert stretched(half, costs(macs=20)) == 150
    assert stretched(half, costs(macs=29)) == 103  # 103.4
    assert remaining(half, costs(macs=30, before=whole - 600)) == 10
    assert with_spare(None, half, costs(macs=20)) == 100 + 2  # 2.5
    assert with_spare(stretched, half, costs(macs=20)) == 150 + 2
    assert with_spare(remaining, half, costs(macs=30, before=whole - 600)) == 10
    with pytest.raises(ValueError, match="leaves no iteration for the detector"):
        remaining(half, costs(macs=30, before=whole - 10))
    # 100 iterations of 2 images that another route's teacher looks at for 10 each are 2000, and 99 are spare
    assert with_spare(None, half, costs(macs=20, teacher=10)) == 100 + 52
    assert with_spare(stretched, half, costs(macs=20, teacher=10)) == 150 + 2  # the rule has counted it


def costs(macs, before=0, teacher=0):
    known = {"macs": macs, "dense_macs": 30, "before": before, "dense_classification": 400, "spare": 99}
    known["teacher"] = teacher
    return Costs(**{name: lambda value=value: value for name, value in known.items()})


def lengths(tmp_path, rule, *overrides):
    changes = (f"detector.budget={rule}", "detector.train.iterations=200", "classifier.train.epochs=3", *overrides)
    config, routes = tiny(*changes)
    estimator = Estimator(tmp_path, config.machine)
    totals, iterations = {}, {}
    for route in routes:
        trained = [s for s in route.stages if s.kind == "train_detector"]
        iterations[route.pipeline] = [estimator.iterations(s) for s in trained]
        totals[route.pipeline] = sum(estimator.estimate(s).train_macs for s in route.stages)
        costs = [estimator.estimate(s).train_macs // (estimator.iterations(s) * 2) for s in trained]
        totals[route.pipeline, "slack"] = costs[-1] * 2
    return iterations, totals


def test_same_compute_stretches_pruned_detectors_only(tmp_path):
    iterations, _ = lengths(tmp_path, "same_compute")
    assert iterations["unpruned"] == [200]
    assert iterations["scratch_e"] == iterations["scratch_b"] == iterations["detect_from_scratch"]
    assert 200 < iterations["scratch_e"][0] < 260
    before, after = iterations["transfer_then_prune"]
    assert before == 140
    assert after == pytest.approx(60 * iterations["scratch_e"][0] / 200, abs=1)


def test_same_total_gives_every_route_the_cost_of_the_unpruned_one(tmp_path):
    iterations, totals = lengths(tmp_path, "same_total")
    assert iterations["unpruned"] == [200]
    for pipeline in ("prune_then_transfer", "transfer_then_prune", "scratch_e", "scratch_b", "detect_from_scratch"):
        short = totals["unpruned"] - totals[pipeline]
        assert 0 <= short < totals[pipeline, "slack"], pipeline  # less than one more iteration
    assert iterations["detect_from_scratch"] > iterations["prune_then_transfer"]


@pytest.mark.parametrize("rule", ["same_iterations", "same_compute", "same_total"])
@pytest.mark.parametrize("cap", ["null", "1.1"])
def test_scratch_b_fair_spends_what_the_pruned_route_spends(tmp_path, rule, cap):
    """Whole epochs, and a cap, leave the classifier a rest, which the detector gets."""
    both = "pipelines=[prune_then_transfer, scratch_b_fair]"
    _, totals = lengths(tmp_path, rule, both, f"classifier.scratch_b_cap={cap}")
    short = totals["prune_then_transfer"] - totals["scratch_b_fair"]
    assert abs(short) < totals["scratch_b_fair", "slack"]  # one iteration


def test_a_finished_scratch_b_fair_spent_what_the_pruned_route_spent(tmp_path):
    config, routes = tiny("pipelines=[prune_then_transfer, scratch_b_fair]", "evaluate={scenes: 0, latency_rounds: 1}")
    run_alone(config, routes, tmp_path)
    spent = {r.pipeline: sum(s.run(tmp_path).read_result()["train_macs"] for s in r.stages) for r in routes}
    detector = routes[-1].evaluation.parents[0].run(tmp_path).read_result()
    one_iteration = detector["train_macs"] // detector["iterations"]
    assert 0 <= spent["prune_then_transfer"] - spent["scratch_b_fair"] < one_iteration


def test_without_a_rule_settings_are_as_before():
    stage = tiny()[1][0].stages[1]
    assert "budget" not in stage.settings


def test_a_detector_alone_has_no_budget_of_routes(tmp_path):
    config = DIGITS.parents[1] / "detect" / "digits_fpn.yaml"
    with pytest.raises(ValueError, match=r"detector\.budget: same_compute is what the routes of a study share"):
        train_detector_alone(config, ["detector.budget=same_compute"], backbone=tmp_path, runs=tmp_path)
