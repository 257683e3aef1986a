"""The report is made of results: files of networks that are gone cost what only they can tell, and a sentence."""

import pytest
from support.tiny_classification import SETTINGS, run

from study.report.rows import COMPARISON
from study.report.write import MARKDOWN
from study.run.study import report_again
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


def test_what_is_measured_of_the_network_alone_needs_the_weights(finished):
    runs, routes = finished
    before, text = rebuilt(runs)
    assert before["pruned"]["activation_bytes"] == before["unpruned"]["activation_bytes"] > 0  # it lost single weights
    assert all(row["latency_ms"] > 0 for row in before.values()) and "No latency" not in text
    (runs / SETTINGS["name"] / "latency.json").write_text("damaged")
    for file in (routes["pruned"].evaluation.run(runs).weights, routes["fine_tune"].evaluation.run(runs).plan):
        file.unlink()
    rows, text = rebuilt(runs)
    assert rows["unpruned"]["latency_ms"] > 0
    assert rows["pruned"]["latency_ms"] is None and rows["fine_tune"]["latency_ms"] is None
    assert "No latency of pruned (seed 0): " in text and "weights.safetensors" in text and "plan.json" in text
    for name, row in rows.items():
        assert {k: v for k, v in row.items() if k not in MEASURED} == {
            k: v for k, v in before[name].items() if k not in MEASURED
        }


def test_a_damaged_result_is_missing_from_the_report_and_the_others_are_there(finished):
    runs, routes = finished
    result = routes["fine_tune"].evaluation.run(runs).result
    result.write_text(result.read_text().replace("epochs", "epochz"))
    rows, text = rebuilt(runs)
    assert set(rows) == {"unpruned", "pruned"}
    assert "its content does not have its checksum" in text


def test_a_report_without_any_weights_is_a_report(finished):
    runs, routes = finished
    (runs / SETTINGS["name"] / "latency.json").unlink(missing_ok=True)
    for route in routes.values():
        for stage in route.stages:
            stage.run(runs).weights.unlink(missing_ok=True)
    rows, _ = rebuilt(runs)
    assert rows and all(row["latency_ms"] is None for row in rows.values())
