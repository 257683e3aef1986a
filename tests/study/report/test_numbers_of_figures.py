"""Whatever a report draws stands in a table below it."""

import ast
from pathlib import Path

import pytest
from support.fabricated_classification import fabricate_classification
from support.fabricated_study import fabricate, with_grid

import study.report
from study.report.content import content_of
from study.report.curves import learning_curves
from study.report.figures import against_training_macs, training_compute
from study.report.material import Material
from study.report.rows import Comparison

MODULES = sorted(Path(study.report.__file__).parent.rglob("*.py"))
FIGURE, COLUMNS, ROWS = 2, 4, 5  # places among the arguments of an exhibit


def without_numbers(code):
    """The exhibits in a module that may have a figure and are given no table."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Exhibit":
            given = {keyword.arg for keyword in node.keywords}
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)  # columns and rows at once
            drawn = len(node.args) <= FIGURE or ast.unparse(node.args[FIGURE]) != "None"
            if drawn and not starred and len(node.args) <= ROWS and not {"columns", "rows"} <= given:
                yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_code_makes_a_figure_without_its_numbers(path):
    assert list(without_numbers(path.read_text(encoding="utf-8"))) == []


def test_a_figure_without_numbers_is_found():
    code = "Exhibit(t, c, None, gaps)\nExhibit(t, c, figure, (), columns, rows)\nExhibit(t, c, f, (), *table)\n"
    assert list(without_numbers(code)) == []
    assert list(without_numbers(code + "Exhibit(t, c, figure)")) == ["Exhibit(t, c, figure)"]
    assert list(without_numbers("Exhibit(t, c, figure, gaps, columns)")) == ["Exhibit(t, c, figure, gaps, columns)"]


@pytest.mark.parametrize(
    "content",
    [fabricate, lambda runs: with_grid(fabricate(runs)), fabricate_classification],
    ids=["detectors", "a grid", "classifiers"],
)
def test_every_figure_of_a_report_has_a_table(tmp_path, content):
    found = content_of(Comparison.from_json(content(tmp_path)), tmp_path, tmp_path / "study")
    drawn = [*(trend.exhibit for trend in found.trends), *found.intervals, *found.analyses, *found.figures]
    drawn = [exhibit for exhibit in drawn if exhibit.figure is not None]
    assert len(drawn) >= 8
    assert [exhibit.title for exhibit in drawn if not exhibit.rows] == []
    assert {len(row) == len(exhibit.columns) for exhibit in drawn for row in exhibit.rows} == {True}


@pytest.fixture
def material(tmp_path):
    return Material.of(Comparison.from_json(fabricate(tmp_path)), tmp_path)


def test_training_compute_is_told_by_stage(material):
    exhibit = training_compute(material.routes)
    rows = [dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows if row[0] == "unpruned"]
    assert [(r["stage"], r["training MACs"], r["shared"]) for r in rows] == [
        ("classify", 40_000_000_000_000, "yes"),
        ("detect", 210_000_000_000_000, "yes"),
    ]
    assert [row["of the route's (%)"] for row in rows] == [16, 84]


def test_scores_are_told_beside_the_training(material):
    exhibit = against_training_macs(material)
    rows = {row[0]: dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows}
    assert rows["unpruned"]["training MACs"] == 250_000_000_000_000
    assert rows["unpruned"]["AP"] == 63 and rows["unpruned"]["n"] == 2


def test_a_curve_is_told_by_its_ends_and_its_extremes(material):
    accuracy = next(e for e in learning_curves(material) if e.title == "Validation accuracy of the classifiers")
    rows = [dict(zip(accuracy.columns, row, strict=True)) for row in accuracy.rows]
    assert len(rows) == len(accuracy.figure.data)
    first = rows[0]
    assert (first["routes"], first["stage"], first["seed"], first["last step"]) == ("6 routes", "classify", 0, 400)
    assert first["first"] == first["lowest"] < first["last"] == first["highest"]  # it only rises
