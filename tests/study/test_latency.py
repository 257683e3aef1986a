"""Latency is a stage of its own: one network of each shape, timed when nothing else is at work, and kept."""

from pathlib import Path

import pytest
from support.tiny_classification import SETTINGS, tiny

import study.run.study as module
from study.plan.latency import read_timing
from study.report.provenance import warnings
from study.report.rows import load_comparison
from study.run.housekeeping import unused_runs, verify_runs
from study.run.study import report_again, run_study
from study.stages.store import RunDir

CHANGES = {
    "seeds": [0, 1],
    "pipelines": ["unpruned", "fine_tune", "scratch_e"],
    "prune": {"method": "l1_filter", "ratio": 0.5},
}


def run(runs, **changes):
    config, routes = tiny({**CHANGES, **{key.replace("__", "."): value for key, value in changes.items()}})
    return run_study(config, Path("tiny.yaml"), routes, runs)


def timing(runs):
    """The stage that times the study's networks, and its run directory."""
    stage = read_timing(RunDir(runs / SETTINGS["name"])).stage
    return stage, stage.run(runs)


def times(runs):
    """(pipeline, seed) -> the latency, of the report that is there."""
    return {(row.pipeline, row.seed): row.latency_ms for row in load_comparison(runs / SETTINGS["name"]).rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    _, outcome = run(runs)
    assert outcome.complete and timing(runs)[0].id in outcome.done
    return runs


def test_one_network_of_each_shape_is_timed_and_seeds_have_times_of_their_own(finished):
    stage, directory = timing(finished)
    assert len(stage.settings["networks"]) == 2
    found, result = times(finished), directory.read_result()
    assert found["fine_tune", 0] == found["scratch_e", 0] != found["fine_tune", 1] == found["scratch_e", 1]
    assert len({*found.values()}) == 4
    for network in result["networks"].values():
        assert [each["rounds"] for each in network["times"]] == [2, 2] and network["activation_bytes"] > 0
    comparison = load_comparison(finished / SETTINGS["name"])
    assert comparison.timed.device == result["device"] and comparison.timed.date == result["date"]
    assert not [line for line in warnings(comparison) if "Latency" in line]
    assert verify_runs(finished)[1] == [] and unused_runs(finished) == []


def test_times_are_kept_until_there_is_another_shape(finished):
    _, directory = timing(finished)
    written = directory.result.stat().st_mtime_ns
    assert run(finished, pipelines=["unpruned", "fine_tune", "scratch_e", "scratch_b"])[1].complete
    assert timing(finished)[1] == directory and directory.result.stat().st_mtime_ns == written
    assert times(finished)["scratch_b", 1] == times(finished)["fine_tune", 1]
    assert run(finished, pipelines=["unpruned"])[1].complete and timing(finished)[1] == directory
    assert run(finished, evaluate__latency_rounds=3)[1].complete and timing(finished)[1] != directory
    assert run(finished)[1].complete and timing(finished)[1] == directory
    assert directory.result.stat().st_mtime_ns == written


def test_nothing_runs_beside_it(tmp_path, monkeypatch):
    calls, real = [], module.run_stages

    def noted(stages, names, runs, machine, *rest):
        calls.append(({stage.kind for stage in stages}, machine.n_jobs))
        return real(stages, names, runs, machine.model_copy(update={"jobs": 1}), *rest)  # here: that is sooner done

    monkeypatch.setattr(module, "run_stages", noted)
    assert run(tmp_path, pipelines=["unpruned"], machine__jobs=2)[1].complete
    assert calls == [({"train_classifier"}, 2), ({"latency"}, 1)]


def test_what_cannot_be_timed_is_said_and_the_rest_of_the_report_is_there(tmp_path):
    assert run(tmp_path)[1].complete
    stage, directory = timing(tmp_path)
    directory.result.unlink()
    weights = RunDir(tmp_path / next(iter(stage.settings["networks"].values()))["paths"]["run"]).weights
    whole = weights.read_bytes()
    weights.write_bytes(b"damaged")
    out, outcome = run(tmp_path)
    assert list(outcome.failed) == [stage.id] and "is not the file that the run wrote" in outcome.failed[stage.id]
    assert {*times(tmp_path).values()} == {None}
    assert "Latency is not measured: " in (out / "report.md").read_text()
    weights.unlink()  # the same shape is there with the other seed
    assert run(tmp_path)[1].complete and None not in times(tmp_path).values()
    weights.write_bytes(whole)


def test_a_study_of_before_is_reported_without_and_timed_when_it_is_run_again(tmp_path):
    assert run(tmp_path, pipelines=["unpruned"])[1].complete
    out = tmp_path / SETTINGS["name"]
    _, directory = timing(tmp_path)
    directory.result.unlink()
    RunDir(out).timing.write_text('{"key": "abc", "device": "cpu", "threads": 1, "networks": {}}')
    report_again(out)
    assert {*times(tmp_path).values()} == {None}
    assert run(tmp_path, pipelines=["unpruned"])[1].complete and None not in times(tmp_path).values()
