"""A study whose detectors are validated while they train: what is recorded, what the report says, what is refused."""

import json

import pytest
from support.tiny_study import DIGITS, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import detect.train
from study.plan.estimate import Estimator
from study.run.study import run_study

pytestmark = pytest.mark.slow  # trainings of whole studies

ONE = "pipelines=[unpruned]"


def finished(tmp_path, *overrides):
    config, routes = tiny(ONE, *overrides)
    out, outcome = run_study(config, DIGITS, routes, tmp_path)
    assert outcome.complete, outcome
    return out, routes[0].evaluation.parents[0].run(tmp_path)


def test_measured_ap_is_in_metrics_tensorboard_and_the_learning_curves(tmp_path):
    out, run = finished(tmp_path, "detector.train.validate_every=2")
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    measured = {row["step"]: row["val_AP"] for row in rows if "val_AP" in row}
    assert list(measured) == [2, 4]
    events = EventAccumulator(str(run.path)).Reload()
    assert [event.step for event in events.Scalars("val_AP")] == [2, 4]
    result = run.read_result()
    assert result["metrics"]["val_AP"] == measured[4] and result["metrics"]["kept_iteration"] == 4
    assert result["iterations"] == result["planned_iterations"] == 4
    assert "Validation AP of the detectors" in (out / "report.html").read_text()
    assert "Iterations kept" not in (out / "report.md").read_text()  # the last one, as without


def test_the_report_says_what_was_kept_and_the_cost_is_of_what_was_trained(tmp_path, monkeypatch):
    _, plain = finished(tmp_path / "plain")
    left = [30.0, 20.0]
    monkeypatch.setattr(detect.train, "evaluate_detector", lambda *_, **__: {"AP": left.pop(0)})
    changes = ["detector.train.validate_every=1", "detector.train.keep=best", "detector.train.patience=1"]
    out, run = finished(tmp_path / "early", *changes)
    result = run.read_result()
    assert (result["iterations"], result["planned_iterations"]) == (2, 4)
    assert result["metrics"]["kept_iteration"] == 1 and result["metrics"]["val_AP"] == 30.0
    assert result["train_macs"] * 2 == plain.read_result()["train_macs"]
    text = (out / "report.md").read_text()
    assert r"by AP on the validation split: unpruned, detect: 1 of 2 (4 planned). Training MACs count all" in text


def test_a_training_that_may_end_early_is_foreseen_as_at_most(tmp_path):
    config, routes = tiny(ONE, "detector.train.validate_every=1", "detector.train.patience=1")
    assert Estimator(tmp_path, config.machine).estimate(routes[0].evaluation.parents[0]).at_most
    config, routes = tiny(ONE)
    assert not Estimator(tmp_path, config.machine).estimate(routes[0].evaluation.parents[0]).at_most


@pytest.mark.parametrize("section", ["train", "fine_tune"])
def test_it_is_refused_without_a_validation_split(tmp_path, section):
    files = f"{{annotations: {tmp_path}/a.json, images: {tmp_path}}}"
    own = [f"detector.dataset={{coco: {{train: {files}, test: {files}}}}}", f"detector.{section}.validate_every=2"]
    with pytest.raises(
        ValueError, match=rf"{section}\.validate_every: AP is measured on a validation split, [^;]* none"
    ):
        tiny(*own)
