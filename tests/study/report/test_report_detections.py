"""The quality of detections in the report: precision against recall, object sizes, differences by class."""

import json
import math
import re
from dataclasses import replace

import pytest
from support.fabricated_classification import fabricate_classification
from support.fabricated_study import a_comparison, a_row, a_step, fabricate

from study.report.analyses import class_differences, object_sizes, precision_recall
from study.report.material import Material
from study.report.rows import Comparison
from study.report.write import figure_json, packed, write_report

T_2 = 12.7062  # two-sided 95 % quantile of Student's t for two seeds
NASTY = "</script><img src=x onerror=alert(1)>|*b*"


def comparison_of(pipelines, **columns):
    """Rows of two seeds with an evaluation each; `columns`: key -> pipeline -> its two values."""
    return a_comparison(
        [
            a_row(
                name,
                seed,
                [a_step("evaluate", f"evaluate-{name}/seed{seed}")],
                **{"AP": 50.0, **{key: values[name][seed] for key, values in columns.items()}},
            )
            for name in pipelines
            for seed in (0, 1)
        ]
    )


def write_curves(runs, name, *seeds):
    """pr.json of a route's evaluations at recall 0, 0.5 and 1."""
    for seed, classes in enumerate(seeds):
        folder = runs / f"evaluate-{name}" / f"seed{seed}"
        folder.mkdir(parents=True)
        curves = {
            key: None if curve is None else {"precision": curve, "score": curve} for key, curve in classes.items()
        }
        (folder / "pr.json").write_text(json.dumps({"iou": 0.5, "recall": [0.0, 0.5, 1.0], "classes": curves}))


@pytest.fixture
def curves(tmp_path):
    """A route of two seeds: seed 1 has no box of class b."""
    first = {"a": [1.0, 0.8, 0.2], "b": [1.0, 0.6, 0.0]}
    write_curves(tmp_path, "unpruned", first, {"a": [1.0, 0.6, 0.0], "b": None})
    return comparison_of(["unpruned"]), tmp_path


def test_precision_is_the_mean_over_classes_then_over_seeds(curves):
    exhibit = precision_recall.analyse(Material.of(*curves))
    band, mean = exhibit.figure.data
    assert list(mean.x) == [0.0, 0.5, 1.0]
    # (1, 0.7, 0.1) of seed 0, where b counts, and (1, 0.6, 0) of seed 1, where it does not
    assert list(mean.y) == pytest.approx([1.0, 0.65, 0.05])
    deviation = 0.1 / math.sqrt(2)
    assert list(band.y) == pytest.approx([1, 0.65 + deviation, 0.05 + deviation, 0.0, 0.65 - deviation, 1])
    (row,) = exhibit.rows
    found = dict(zip(exhibit.columns, row, strict=True))
    assert (found["route"], found["n"]) == ("unpruned", 2)
    assert found["precision at recall 0.5"] == pytest.approx(0.65)
    assert row[exhibit.columns.index("precision at recall 0.5") + 1] == pytest.approx(deviation)


def test_few_classes_have_a_figure_each(curves):
    exhibit = precision_recall.by_class(Material.of(*curves))
    means = [trace for trace in exhibit.figure.data if trace.name]
    assert [list(trace.y) for trace in means] == [pytest.approx([1.0, 0.7, 0.1]), [1.0, 0.6, 0.0]]
    assert [trace.showlegend for trace in means] == [True, False]
    assert [annotation.text for annotation in exhibit.figure.layout.annotations] == ["a", "b"]
    assert [(row[0], row[-1]) for row in exhibit.rows] == [("a", 2), ("b", 1)]


def test_many_classes_have_none_and_one_class_needs_none(tmp_path):
    for name, count in (("one", 1), ("six", 6), ("seven", 7)):
        write_curves(tmp_path, name, {f"c{i}": [1.0, 0.5, 0.0] for i in range(count)})
    drawn = {
        name: precision_recall.by_class(Material.of(comparison_of([name]), tmp_path))
        for name in ("one", "six", "seven")
    }
    assert [name for name, exhibit in drawn.items() if exhibit is not None] == ["six"]


def test_curves_that_are_absent_or_damaged_are_gaps(curves):
    comparison, runs = curves
    (runs / "evaluate-unpruned/seed0/pr.json").write_text(
        '{"recall": [0, 0.5, 1], "classes": {"a": {"precision": [1]}}}'
    )
    exhibit = precision_recall.analyse(Material.of(comparison, runs))
    assert exhibit.gaps == ("evaluate-unpruned/seed0/pr.json: not the precision at the recalls of COCO",)
    assert exhibit.rows[0][-1] == 1
    for seed in (0, 1):
        (runs / f"evaluate-unpruned/seed{seed}/pr.json").unlink()
    exhibit = precision_recall.analyse(Material.of(comparison, runs))
    assert exhibit.figure is None and exhibit.rows == ()
    assert exhibit.gaps[1] == "evaluate-unpruned/seed1/pr.json: No such file or directory"
    assert precision_recall.by_class(Material.of(comparison, runs)) is None


def test_sizes_are_means_and_deviations_over_seeds(tmp_path):
    sizes = {
        "APs": {"unpruned": (20.0, 22.0), "scratch_e": (10.0, None)},
        "APm": {"unpruned": (None, None), "scratch_e": (None, None)},
        "APl": {"unpruned": (60.0, 60.0), "scratch_e": (61.0, 63.0)},
    }
    exhibit = object_sizes.analyse(Material.of(comparison_of(["unpruned", "scratch_e"], **sizes), tmp_path))
    assert exhibit.columns == ("route", "at", "APs", "APs sd", "APs n", "APl", "APl sd", "APl n")
    assert exhibit.rows[0] == ("unpruned", "", 21.0, pytest.approx(math.sqrt(2)), 2, 60.0, 0.0, 2)
    assert exhibit.rows[1] == ("scratch_e", "", 10.0, None, 1, 62.0, pytest.approx(math.sqrt(2)), 2)
    assert [list(bars.y) for bars in exhibit.figure.data] == [[21.0, 60.0], [10.0, 62.0]]
    assert exhibit.caption.endswith("No object of the test images is medium.")


def test_without_sizes_there_is_no_section(tmp_path):
    assert object_sizes.analyse(Material.of(comparison_of(["unpruned"]), tmp_path)) is None
    assert (
        object_sizes.analyse(Material.of(comparison_of(["unpruned"], APs={"unpruned": (None, None)}), tmp_path)) is None
    )


def classes(count):
    """Class i: 50 for the unpruned detector; 50 + i and 52 + i after scratch_e, so that it gains i + 1 in the mean."""
    dense = [{f"c{i}": 50.0 for i in range(count)}] * 2
    return {"unpruned": dense, "scratch_e": [{f"c{i}": 50.0 + i + 2 * seed for i in range(count)} for seed in (0, 1)]}


def test_class_differences_are_paired_over_seeds_and_the_largest_come_first(tmp_path):
    comparison = comparison_of(["unpruned", "scratch_e"], per_class=classes(3))
    exhibit = class_differences.analyse(Material.of(comparison, tmp_path))
    assert [row[0] for row in exhibit.rows] == ["c2", "c1", "c0"]
    # differences 2 and 4: mean 3, standard error 1
    wanted = (
        "c2",
        "scratch_e",
        "",
        50.0,
        53.0,
        3.0,
        pytest.approx(3 - T_2, abs=1e-3),
        pytest.approx(3 + T_2, abs=1e-3),
    )
    assert exhibit.rows[0] == (*wanted, 2)
    (markers,) = exhibit.figure.data
    assert list(markers.x) == [3.0, 2.0, 1.0] and list(markers.y) == [0.0, 1.0, 2.0]
    assert list(markers.error_x.array) == pytest.approx([T_2] * 3, abs=1e-3)
    assert "left out" not in exhibit.caption


def test_the_classes_beyond_twenty_are_counted(tmp_path):
    exhibit = class_differences.analyse(
        Material.of(comparison_of(["unpruned", "scratch_e"], per_class=classes(25)), tmp_path)
    )
    assert len(exhibit.rows) == 20 and exhibit.rows[-1][0] == "c5"
    assert "5 more classes differ less and are left out." in exhibit.caption


def test_a_class_without_boxes_and_a_study_without_its_reference_are_left_out(tmp_path):
    of = classes(2)
    of["scratch_e"] = [table | {"c1": None} for table in of["scratch_e"]]
    exhibit = class_differences.analyse(Material.of(comparison_of(["unpruned", "scratch_e"], per_class=of), tmp_path))
    assert [row[0] for row in exhibit.rows] == ["c0"]
    assert class_differences.analyse(Material.of(comparison_of(["scratch_e"], per_class=of), tmp_path)) is None


def test_at_each_grid_point_the_reference_is_the_one_there(tmp_path):
    of = classes(1)
    rows = [
        replace(row, point={"prune.ratio": ratio})
        for ratio, dense in ((0.5, 50.0), (0.7, 40.0))
        for row in comparison_of(["unpruned", "scratch_e"], per_class={**of, "unpruned": [{"c0": dense}] * 2}).rows
    ]
    rows = class_differences.analyse(Material.of(a_comparison(rows), tmp_path)).rows
    assert [(row[2], row[5]) for row in rows] == [("prune.ratio = 0.5", 1.0), ("prune.ratio = 0.7", 11.0)]


def test_classifiers_have_none_of_it(tmp_path):
    material = Material.of(Comparison.from_json(fabricate_classification(tmp_path)), tmp_path)
    analyses = (precision_recall.analyse, precision_recall.by_class, object_sizes.analyse, class_differences.analyse)
    assert [analyse(material) for analyse in analyses] == [None] * 4


def test_class_names_are_harmless_in_figures(tmp_path):
    write_curves(tmp_path, "unpruned", {NASTY: [1.0, 0.5, 0.0], "b": [1.0, 0.5, 0.0]})
    write_curves(tmp_path, "scratch_e", {NASTY: [1.0, 0.5, 0.0], "b": [1.0, 0.5, 0.0]})
    of = {name: [{NASTY: 50.0}, {NASTY: 51.0}] for name in ("unpruned", "scratch_e")}
    comparison = comparison_of(["unpruned", "scratch_e"], per_class=of)
    for analyse in (precision_recall.by_class, class_differences.analyse):
        text = figure_json(analyse(Material.of(comparison, tmp_path)).figure)
        assert "<img" not in str(json.loads(text))
        assert re.fullmatch(r"[\w+/=]+", packed(text))  # nothing in it can end its <script> element


def test_the_tables_are_in_the_markdown(tmp_path, monkeypatch):
    monkeypatch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")
    page = write_report(Comparison.from_json(fabricate(tmp_path)), tmp_path, tmp_path / "digits")
    markdown = (page.parent / "report.md").read_text()
    for title in ("Precision against recall", "AP by object size", "AP by class against unpruned"):
        assert f"### {title}" in markdown and title in page.read_text()
    # APm of the fabricated seeds is AP - 3: 59.4 and 60.6
    assert "| unpruned | – | 60 | 0.8485 | 2 |" in markdown
