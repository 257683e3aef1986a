"""The report's figures of errors, from the errors.json of made-up evaluations."""

import json

import pytest
from support.fabricated_study import fabricate

from detect.errors import KINDS
from study.report.analyses import errors
from study.report.artifacts import RunFiles
from study.report.material import Material
from study.report.rows import Comparison


def with_errors(tmp_path, classes=("cat", "dog"), leave_out=()):
    """A study whose evaluations have lost `seed + 1` points to each kind, and take one cat of four for a dog."""
    comparison = Comparison.from_json(fabricate(tmp_path))
    for row in comparison.rows:
        if row.pipeline not in leave_out:
            content = {
                "cost": dict.fromkeys(KINDS, row.seed + 1.0),
                "count": dict.fromkeys(KINDS, 5),
                "classes": list(classes),
                "confusion": [[0, 0, 3], [0, 1, 1], [1, 1, 2], [1, len(classes), 2], [len(classes), 0, 9]],
                "min_score": 0.5,
            }
            (tmp_path / row.chain[-1].run / "errors.json").write_text(json.dumps(content))
    material = Material.of(comparison, tmp_path)
    return Material(material.topic, material.routes, material.looks, RunFiles(tmp_path), material.stages)


def test_costs_are_means_over_seeds(tmp_path):
    exhibit = errors.kinds(with_errors(tmp_path))
    row = dict(zip(exhibit.columns, exhibit.rows[0], strict=True))
    assert row["n"] == 2 and row["AP50 gained"] == pytest.approx(1.5) and row["errors, mean"] == 5
    assert len(exhibit.figure.data) == len({(row[0], row[1]) for row in exhibit.rows}) == 6


def test_shares_are_of_the_boxes_of_a_class(tmp_path):
    exhibit = errors.confusion(with_errors(tmp_path))
    cat, dog = (dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows[:2])
    assert cat["found as cat (%)"] == 75 and cat["found as dog (%)"] == 25
    assert dog["found as dog (%)"] == 50 and dog["found as nothing (%)"] == 50
    assert len(exhibit.figure.data) == 6


def test_routes_of_other_classes_are_left_out_and_counted(tmp_path):
    with_errors(tmp_path, classes=("cat", "dog", "cow"))
    exhibit = errors.confusion(with_errors(tmp_path, leave_out=("scratch_b",)))
    assert "Of 6 routes 1 have other classes and are left out." in exhibit.caption
    assert "left out" not in errors.confusion(with_errors(tmp_path)).caption


def test_runs_of_before_are_left_out_and_none_draw_nothing(tmp_path):
    material = with_errors(tmp_path, leave_out=("unpruned",))
    assert "unpruned" not in {row[0] for row in errors.kinds(material).rows}
    empty = Material.of(Comparison.from_json(fabricate(tmp_path / "empty")), tmp_path / "empty")
    assert errors.kinds(empty) is None and errors.confusion(empty) is None


def test_many_classes_have_no_matrix(tmp_path):
    names = [f"class {k}" for k in range(errors.MOST_CLASSES + 1)]
    assert errors.confusion(with_errors(tmp_path, classes=names)) is None
