"""What a report of a grid over numbers leads with."""

import pytest
from support.fabricated_study import a_row, a_step

from study.report.artifacts import RunFiles
from study.report.material import Material
from study.report.routes import group_routes, looks
from study.report.topic import DETECTION
from study.report.trends import trends

FIELD = "detector.prune_at"


def material(lines, tmp_path, dense=(60.0, 60.3, 60.1)):
    """Routes along FIELD: pipeline -> value -> APs of the seeds, and `unpruned` outside the grid."""
    rows = [a_row("unpruned", seed, [], None, AP=ap) for seed, ap in enumerate(dense)]
    for name, line in lines.items():
        for value, scores in line.items():
            chain = [a_step("prune", "prune-a")]
            rows += [a_row(name, seed, chain, {FIELD: value}, AP=ap) for seed, ap in enumerate(scores)]
    routes = group_routes(rows)
    return Material(DETECTION, routes, looks([route.name for route in routes]), RunFiles(tmp_path), {})


FALLING = {0.9: [39.5, 40.1, 39.2], 0.1: [53.8, 54.0, 53.5], 0: [53.9, 54.4, 53.6], 0.5: [47.7, 48.0, 47.3]}


def test_a_line_says_where_it_is_highest_and_what_is_shown(tmp_path):
    (trend,) = trends(material({"transfer_then_prune": FALLING}, tmp_path), [FIELD, "method"])
    (sentence,) = trend.sentences
    assert sentence.startswith(
        "transfer_then_prune: AP is highest at detector.prune_at = 0 (54.0) and lowest at 0.9 (39.6), a difference of "
        "+14.4 [1"
    )
    assert sentence.endswith(", shown. Not told apart from the highest: 0.1.")


def test_the_table_gives_each_value_against_the_first(tmp_path):
    (trend,) = trends(material({"transfer_then_prune": FALLING}, tmp_path), [FIELD])
    assert [(row[2], round(row[3], 2)) for row in trend.exhibit.rows] == [
        *((0.0, 53.97), (0.1, 53.77)),
        *((0.5, 47.67), (0.9, 39.6)),
    ]
    assert trend.exhibit.rows[0][4:] == (None, None, None, 0)
    difference, low, high, n = trend.exhibit.rows[-1][4:]
    assert difference == pytest.approx(39.6 - 53.9667, abs=1e-3)
    assert low < difference < high < 0 and n == 3


def test_the_figure_has_bars_that_decide_and_levels_outside_the_grid(tmp_path):
    (trend,) = trends(material({"transfer_then_prune": FALLING}, tmp_path), [FIELD])
    means = trend.exhibit.figure.data[0]
    assert list(means.x) == [0.0, 0.1, 0.5, 0.9]
    (bar,) = set(means.error_y.array)
    widest = max(row[6] - row[5] for row in trend.exhibit.rows[1:])
    assert widest / 4 <= bar < widest / 2  # of all pairs, and the table has those with the first
    (level,) = trend.exhibit.figure.layout.shapes
    assert level.y0 == pytest.approx(60.1333, abs=1e-3)
    assert trend.exhibit.figure.layout.annotations[0].text == "unpruned 60.1"


@pytest.mark.parametrize("line", [{0: [50.0], 0.5: [49.0], 0.9: [40.0]}])
def test_one_seed_decides_nothing(line, tmp_path):
    (trend,) = trends(material({"transfer_then_prune": line}, tmp_path, dense=[60.0]), [FIELD])
    assert trend.sentences[0].endswith("without a second seed nothing is decided.")


def test_one_value_and_words_are_no_trend(tmp_path):
    assert trends(material({"transfer_then_prune": {0: FALLING[0]}}, tmp_path), [FIELD]) == []
    words = {"early": [1.0], "late": [2.0], "never": [3.0]}
    assert trends(material({"transfer_then_prune": words}, tmp_path), [FIELD]) == []
