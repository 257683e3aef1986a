"""Published numbers beside ours, from a fabricated study."""

from dataclasses import replace

from support.fabricated_study import fabricate, with_grid

from study.report.content import content_of
from study.report.rows import Comparison
from study.report.write import render_html, render_markdown


def content(tmp_path, *expected, grid=False):
    found = fabricate(tmp_path, seeds=(0, 1, 2))
    comparison = Comparison.from_json(with_grid(found) if grid else found)
    comparison = replace(comparison, config={**comparison.config, "expect": list(expected)})
    return content_of(comparison, tmp_path, tmp_path / "out")


def given(**changes):
    return {
        "route": "unpruned",
        "measure": "AP",
        "value": 62.0,
        "source": "A & B 2019, table 2",
        "seen": True,
        **changes,
    }


def test_the_difference_has_the_interval_of_our_mean(tmp_path):
    """62.4, 63.6, 63.0: mean 63.0, deviation 0.6, so that t(2) 4.303 x 0.6 / sqrt 3 = 1.49."""
    (line,) = content(tmp_path, given(spread=0.1)).expected
    assert line == ("unpruned", "", "AP", "62 ± 0.1", "63.0 ± 0.6 (n = 3)", "+1.0 [−0.5, 2.5]", "A & B 2019, table 2")


def test_a_number_is_set_beside_the_result_at_its_point_of_the_grid(tmp_path):
    """At 0.7 every pruned route has 4 AP less: scratch_e has 59.0, 60.1 and 60.0 at 0.5."""
    where = {"prune.ratio": 0.7}
    lines = content(
        tmp_path, given(route="scratch_e", where=where), given(route="scratch_e", where={"prune.ratio": 0.9}), grid=True
    ).expected
    assert lines[0][:6] == ("scratch_e", "prune.ratio = 0.7", "AP", "62", "55.7 ± 0.6 (n = 3)", "−6.3 [−7.8, −4.8]")
    assert lines[1][4:6] == ("no result", "–")


def test_a_study_that_chose_rates_sets_it_beside_the_rates_of_its_config(tmp_path):
    """There was "no result" where every row says whose rates it has."""
    rows = Comparison.from_json(fabricate(tmp_path, seeds=(0, 1, 2)))
    told = [replace(row, point={"rates": rates}) for rates in ("tuned", "recipe") for row in rows.rows]
    comparison = replace(rows, rows=tuple(told), config={**rows.config, "expect": [given()]})
    (line,) = content_of(comparison, tmp_path, tmp_path / "out").expected
    assert line[1] == "rates = recipe" and line[4] == "63.0 ± 0.6 (n = 3)"


def test_both_reports_have_the_table_where_numbers_are_expected(tmp_path):
    with_numbers, without = content(tmp_path, given()), content(tmp_path)
    for render in (render_html, render_markdown):
        assert "Beside published numbers" in render(with_numbers)
        assert "A &amp; B 2019, table 2" in render(with_numbers)
        assert "Beside published numbers" not in render(without)
