"""The report's table of what a difference owes to seeds and to test images."""

import io
from dataclasses import replace

import numpy as np
import pytest
from support.fabricated_classification import fabricate_classification
from support.fabricated_study import a_step

from study.report.analyses import get_analysis
from study.report.material import Material
from study.report.rows import Comparison, StageResult
from study.stages.store import RunDir

IMAGES = 400
analyse = get_analysis("test_images")


def material(runs, *, kept=True):
    comparison = Comparison.from_json(fabricate_classification(runs, variants=("l1",)))
    for row in comparison.rows if kept else ():
        run = RunDir(runs / row.chain[-1].run)
        run.path.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([row.seed, len(row.pipeline)])
        file = io.BytesIO()
        np.save(file, generator.random(IMAGES) < row.number("top1") / 100)
        run.correct.write_bytes(file.getvalue())
    return Material.of(comparison, runs)


def test_each_route_has_both_errors_against_the_unpruned_one(tmp_path):
    exhibit = analyse(material(tmp_path))
    rows = {row[0]: dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows}
    assert "unpruned" not in rows and "fine_tune" in rows
    tuned = rows["fine_tune"]
    seeds, images, both = (tuned[f"error, {what}"] for what in ("other seeds", "other images", "both"))
    # two independent networks of about 90 %: a share's variance is 0.09 / 400 each, over three seeds
    assert images == pytest.approx(100 * np.sqrt(2 * 0.09 / IMAGES / 3), rel=0.35)
    assert max(seeds, images) <= both <= np.hypot(seeds, images) + 1e-9
    assert tuned["n"] == 3
    assert [bar.name for bar in exhibit.figure.data] == ["other seeds", "other test images"]


def test_runs_that_kept_nothing_of_each_image_are_said_and_not_counted(tmp_path):
    exhibit = analyse(material(tmp_path, kept=False))
    assert exhibit.figure is None and exhibit.rows == ()
    assert "ran before correct.npy was kept" in exhibit.gaps[0]
    assert len(exhibit.gaps) == 4 and exhibit.gaps[-1].endswith(" more runs, for such reasons.")


def test_routes_of_other_test_images_are_not_paired(tmp_path):
    """A grid may vary the data: images of one set say nothing of those of another."""
    made = material(tmp_path)
    for row in next(route for route in made.routes if route.name == "fine_tune").rows:
        file = io.BytesIO()
        np.save(file, np.ones(IMAGES // 2, dtype=bool))
        RunDir(tmp_path / row.chain[-1].run).correct.write_bytes(file.getvalue())
    names = [row[0] for row in analyse(made).rows]
    assert "fine_tune" not in names and "scratch_e" in names


def test_a_design_after_networks_of_other_data_is_of_its_own(tmp_path):
    made = material(tmp_path)
    (route,) = (route for route in made.routes if route.name == "scratch_e")
    stages = {
        run: replace(stage, result={**stage.result, "data": {"fingerprint": "own"}})
        for run, stage in made.stages.items()
    }
    stages["guide"] = StageResult("train_classifier", "guide", {"data": {"fingerprint": "other"}})
    rows = tuple(replace(row, chain=(a_step("train_classifier", "guide"), *row.chain)) for row in route.rows)
    routes = [replace(each, rows=rows) if each is route else each for each in made.routes]
    exhibit = analyse(replace(made, routes=routes, stages=stages))
    assert "scratch_e" in [row[0] for row in exhibit.rows]
