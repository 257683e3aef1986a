"""The report is made of results: it needs no network, and says what was not measured."""

import pytest
from support.tiny_classification import SETTINGS, run

from study.plan.latency import read_timing
from study.report.rows import COMPARISON
from study.report.write import MARKDOWN
from study.run.study import report_again
from study.stages.store import RunDir
from training.files import read_json

MEASURED = (
    "latency_ms",
    "latency_first_quartile_ms",
    "latency_third_quartile_ms",
    "latency_rounds",
    "activation_bytes",
)
CHANGES = {"pipelines": ["unpruned", "pruned", "fine_tune"], "machine.precision": "float32", "prune.ratio": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study: the runs folder and its routes by pipeline."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, {key[0]: route for key, route in run(runs, CHANGES).items()}


def rebuilt(runs):
    """The rows by pipeline and the text of the report, made again."""
    report_again(runs / SETTINGS["name"])
    found = read_json(runs / SETTINGS["name"] / COMPARISON)
    return {row["pipeline"]: row for row in found["rows"]}, (runs / SETTINGS["name"] / MARKDOWN).read_text()


def test_times_that_were_taken_outlive_the_networks(finished):
    runs, routes = finished
    before, text = rebuilt(runs)
    assert before["pruned"]["activation_bytes"] == before["unpruned"]["activation_bytes"] > 0  # it lost single weights
    assert all(row["latency_ms"] > 0 for row in before.values()) and "Latency is not measured" not in text
    for file in (routes["pruned"].evaluation.run(runs).weights, routes["fine_tune"].evaluation.run(runs).plan):
        file.unlink()
    rows, text = rebuilt(runs)
    assert rows == before and "Latency is not measured" not in text


def test_a_damaged_result_is_missing_from_the_report_and_the_others_are_there(finished):
    runs, routes = finished
    result = routes["fine_tune"].evaluation.run(runs).result
    result.write_text(result.read_text().replace("epochs", "epochz"))
    rows, text = rebuilt(runs)
    assert set(rows) == {"unpruned", "pruned"}
    assert "its content does not have its checksum" in text


def test_a_report_without_any_weights_and_times_is_a_report(finished):
    runs, routes = finished
    before, _ = rebuilt(runs)
    read_timing(RunDir(runs / SETTINGS["name"])).stage.run(runs).result.unlink()
    for route in routes.values():
        for stage in route.stages:
            stage.run(runs).weights.unlink(missing_ok=True)
    rows, text = rebuilt(runs)
    assert rows and all(row["latency_ms"] is None for row in rows.values())
    assert "Latency is not measured: a run of the study does so at its end." in text and "latency: not measured" in text
    for name, row in rows.items():
        assert {k: v for k, v in row.items() if k not in MEASURED} == {
            k: v for k, v in before[name].items() if k not in MEASURED
        }
