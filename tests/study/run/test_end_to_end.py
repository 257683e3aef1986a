"""The tiny study, whole: all six routes, the four answers, finished work left alone."""

import csv
import io
import json
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.tiny_study import ALL, DIGITS, TINY, tiny
from support.trivial_stages import Doing

from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.plan.pipelines import all_stages
from study.report.artifacts import RunFiles
from study.report.routes import LATENCY_FROM, LATENCY_TO
from study.report.statistics.images import average_precisions
from study.run.study import report_again, run_study
from study.stages.network import read_weights
from study.stages.stage import KINDS

ROOT = Path(__file__).parents[3]
NOT_TIMES = ("latency_ms", LATENCY_FROM, LATENCY_TO, "seconds", "prune_seconds")


@dataclass
class Done:
    stdout: str
    stderr: str


def launch(script, *arguments, expect=0):
    """Run a launcher as a program, but in this process: importing everything again takes twelve seconds."""
    out, err = io.StringIO(), io.StringIO()
    argv = [str(ROOT / "tools" / script), *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as exit_code,
    ):
        runpy.run_path(argv[0], run_name="__main__")
    assert exit_code.value.code == expect, out.getvalue() + err.getvalue()
    return Done(out.getvalue(), err.getvalue())


def rows(out):
    with (out / "comparison.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in NOT_TIMES} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study with all routes, run once in this process."""
    runs = tmp_path_factory.mktemp("runs")
    config, routes = tiny()
    out, outcome = run_study(config, DIGITS, routes, runs)
    assert outcome.complete, outcome
    return out, routes, runs


def test_every_route_has_a_row_with_its_costs(finished):
    out, routes, _ = finished
    table = {row["pipeline"]: row for row in rows(out)}
    assert list(table) == ALL
    dense, small = table["unpruned"], table["prune_then_transfer"]
    for name in ALL[1:]:
        assert int(table[name]["backbone_macs"]) < int(dense["backbone_macs"])
        for cost in ("backbone_params", "backbone_macs", "detector_params", "detector_macs"):
            assert table[name][cost] == small[cost]
    comparison = json.loads((out / "comparison.json").read_text())
    for row in comparison["rows"]:
        assert row["train_macs"] == sum(step["train_macs"] for step in row["chain"])
    # pruning inside the detector trains for the same number of images as every other route
    images = {
        r.pipeline: sum(s.run(out.parent).read_result()["images_seen"] for s in r.stages if s.kind == "train_detector")
        for r in routes
    }
    assert set(images.values()) == {8}


def test_learning_curves_of_both_halves_are_there_to_draw(finished):
    _, routes, runs = finished
    for stage in all_stages(routes):
        if stage.kind.startswith("train_"):
            lines = [json.loads(line) for line in stage.run(runs).metrics.read_text().splitlines()]
            assert lines and all({"step", "total", "loss", "lr"} <= line.keys() for line in lines), stage.id


def test_training_macs_are_three_forward_passes_an_image(finished):
    _, routes, runs = finished
    classify = routes[0].stages[0].run(runs).read_result()
    assert classify["images_seen"] == 2 * 48
    assert classify["train_macs"] == 3 * classify["network"]["macs"] * 96


def test_scratch_b_spends_what_the_dense_training_spent(finished):
    _, routes, runs = finished
    found = {r.pipeline: r.stages for r in routes}
    dense = found["unpruned"][0].run(runs).read_result()
    trained = found["scratch_b"][1].run(runs).read_result()
    assert trained["epochs"] == 2 * dense["network"]["macs"] // trained["network"]["macs"]


def test_artifacts_of_a_pruned_network(finished):
    _, routes, runs = finished
    pruned = next(s for r in routes for s in r.stages if s.kind == "prune" and s.parents).run(runs)
    plan = PruningPlan.load(pruned.plan)
    assert all(len(keep) == plan.widths[name] // 2 for name, keep in plan.keep.items())
    result = pruned.read_result()
    assert result["network"]["params"] < result["dense"]["params"]
    assert result["masked_equals_small"] < 1e-3
    assert {"versions", "device", "git", "seconds"} <= result.keys()


def test_scores_follow_from_what_is_kept_of_each_image(finished):
    """Every image once: the AP and the accuracy of each run's result; the same images in all runs."""
    _, routes, runs = finished
    evaluations, files = [], RunFiles(runs)
    for stage in {s.id: s for r in routes for s in r.stages}.values():
        result = stage.run(runs).read_result()
        if stage.kind == "evaluate":
            evaluations.append((files.matches(stage.id)["COCO"], result["metrics"], result["per_class"]))
        elif "test_top1" in result["metrics"]:
            correct = files.correct(stage.id)
            assert len(correct) == result["metrics"].get("test_images", len(correct))
            assert 100 * correct.sum() / len(correct) == result["metrics"]["test_top1"]
        else:
            assert not stage.run(runs).correct.exists()
    assert files.gaps == [] and len(evaluations) == len(ALL)
    once = np.ones((len(evaluations[0][0].boxes), 1), dtype=np.float32)
    found = average_precisions([matches for matches, *_ in evaluations], once)
    for e, (matches, metrics, per_class) in enumerate(evaluations):
        ours = [found.ap[e, 0], *found.by_iou[e, 0, [0, 5]]]
        assert ours == pytest.approx([metrics[name] for name in ("AP", "AP50", "AP75")], rel=1e-12)
        by_class = {name: found.by_class[e, 0, k] for k, name in enumerate(matches.classes)}
        expected = {name: np.nan if value is None else value for name, value in per_class.items()}
        assert by_class == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_finished_study_is_not_run_again_and_its_report_can_be_rebuilt(finished):
    out, routes, runs = finished
    before = {s.id: s.run(runs).result.stat().st_mtime_ns for s in all_stages(routes)}
    table = (out / "comparison.csv").read_text()
    (out / "comparison.csv").unlink()
    config, again = tiny()
    run_study(config, DIGITS, again, runs)
    assert {s.id: s.run(runs).result.stat().st_mtime_ns for s in all_stages(again)} == before
    assert (out / "comparison.csv").read_text() == table
    (out / "report.html").unlink()
    assert report_again(out) == out / "report.html"
    assert "unpruned" in (out / "report.html").read_text()
    assert (out / "report.md").is_file() and (out / "comparison.json").is_file()


def test_no_checkpoint_and_no_temporary_file_is_left(finished):
    _, _, runs = finished
    names = {p.name for p in runs.rglob("*") if p.is_file()}
    assert not {n for n in names if n.endswith((".pt", ".partial", ".tmp"))}
    assert not [p for p in runs.rglob(".*") if p.is_file() and p.name not in (".lock", ".at_work")]


def test_a_route_that_fails_leaves_the_others_and_says_why(finished, tmp_path, monkeypatch):
    """Stages behind the failure are blocked; the report lists what is missing."""

    def fail(context):
        raise KeyError("the disk is made of cheese")

    monkeypatch.setitem(KINDS, "prune", Doing("prune", fail))
    config, routes = tiny("pipelines=[unpruned, scratch_e]", "detector.train.iterations=2")
    out, outcome = run_study(config, DIGITS, routes, tmp_path)
    assert not outcome.complete
    assert list(outcome.failed.values()) == ["KeyError: 'the disk is made of cheese' (the traceback is in log.txt)"]
    assert len(outcome.blocked) == 3
    comparison = json.loads((out / "comparison.json").read_text())
    assert [r["pipeline"] for r in comparison["rows"]] == ["unpruned"]
    assert "made of cheese" in comparison["missing"][0]["why"]


def test_single_weights_removed_from_a_backbone_stay_zero_in_the_detector(tmp_path):
    """Held while the detector trains: after pruning the classifier, inside the detector, and without pretraining."""
    pipelines = "[prune_then_transfer, transfer_then_prune, detect_from_scratch]"
    config, routes = tiny(f"pipelines={pipelines}", "prune={method: magnitude, ratio: 0.6}", "evaluate.scenes=0")
    _, outcome = run_study(config, DIGITS, routes, tmp_path)
    assert outcome.complete, outcome
    for route in routes:
        run = route.evaluation.parents[0].run(tmp_path)
        masks, weights = Masks.load(run.masks), read_weights(run.weights)
        held = {name: weights.get(f"backbone.bottom_up.body.{name}") for name in masks}
        assert sum(weight is not None for weight in held.values()) == 9, route.pipeline  # layer4 is not in the detector
        for name, weight in held.items():
            if weight is not None:
                assert bool((weight[~masks[name]] == 0).all()) and bool((weight[masks[name]] != 0).all()), name


def test_launchers_of_single_stages(finished, tmp_path):
    _, routes, runs = finished
    keep = ("classifier.", "machine.")
    single = [o for o in TINY if o.startswith(keep)]
    done = launch("train_cls.py", ROOT / "configs/classify/digits_resnet10.yaml", *single, "--runs", runs)
    dense = Path(done.stdout.splitlines()[-1].removeprefix("run directory: "))
    assert dense == routes[0].stages[0].run(runs).path  # the study's own stage, found done
    shape = next(r for r in routes if r.pipeline == "scratch_e").stages[0].run(runs).path
    detector = [o for o in TINY if o.startswith(("detector.", "machine.", "evaluate"))]
    config = ROOT / "configs/detect/digits_fpn.yaml"
    done = launch("train_det.py", config, *detector, "init=random", "--backbone", shape, "--runs", runs)
    metrics = json.loads(done.stdout.splitlines()[-2])
    assert set(metrics) == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    failed = launch("train_det.py", config, "--backbone", shape, "--runs", runs, expect=2)
    assert "was never trained; use init: random" in failed.stderr
    for several in ((), ("--num-gpus", "2")):
        apart = launch("train_det.py", config, "--backbone", dense, "--runs", tmp_path, *several, expect=2)
        assert f"{dense} is not in the folder of runs {tmp_path}; set --runs to {runs}" in apart.stderr
        assert "Traceback" not in failed.stderr + apart.stderr
    assert not list(tmp_path.iterdir())


def test_the_dry_run_trains_nothing_and_shows_every_stage(tmp_path):
    done = launch("run_pipeline.py", DIGITS, *TINY, "--runs", tmp_path, "--dry-run")
    assert "6 routes, 20 stages" in done.stdout
    assert "training MACs: " in done.stdout
    assert not list(tmp_path.glob("train_*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune.ratio=1.5"], "prune.ratio"),
        (["prune.ratio=0.99"], "leaves no channel of 8"),
        (["no-equals-sign"], "key.path=value"),
        (["--runs", "/proc/nowhere"], "cannot write run directories there"),
    ],
)
def test_bad_input_is_one_sentence_and_a_failing_exit_code(tmp_path, arguments, message):
    arguments = arguments if "--runs" in arguments else [*arguments, "--runs", str(tmp_path)]
    failed = launch("run_pipeline.py", DIGITS, *TINY, *arguments, expect=2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(tmp_path.glob("train_*"))


def coco_files(folder, *, image=b"", boxes=True, listed=1):
    """A COCO JSON of one image, and the override that makes a study use it."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    (folder / "a.png").write_bytes(image or buffer.getvalue())
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
    names = ["a.png", "b.png"][:listed]
    data = {
        "images": [{"id": i + 1, "file_name": n, "width": 64, "height": 64} for i, n in enumerate(names)],
        "annotations": [box] if boxes else [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "a.json").write_text(json.dumps(data))
    part = f"{{annotations: {folder}/a.json, images: {folder}}}"
    return f"detector.dataset={{coco: {{train: {part}, test: {part}}}}}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": b"\x89PNG\r\n\x1a\nbroken"}, "a.png"),
        ({"boxes": False}, "'annotations' is missing or empty"),
        ({"listed": 2}, "1 of 2 images missing, such as"),
    ],
)
def test_bad_detection_data_is_refused_before_anything_is_trained(tmp_path, changes, message):
    override = coco_files(tmp_path, **changes)
    # the demo's generated data is replaced, not merged
    tiny_without_digits = [o for o in TINY if not o.startswith("detector.dataset")]
    failed = launch("run_pipeline.py", DIGITS, *tiny_without_digits, override, "--runs", tmp_path / "runs", expect=2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list((tmp_path / "runs").glob("train_*"))


def test_a_data_set_of_ones_own_in_coco_format(tmp_path):
    """Its only image is in both splits, which has to be allowed."""
    override = coco_files(tmp_path)
    config, routes = tiny("pipelines=[detect_from_scratch]", override)
    with pytest.raises(ValueError, match=r"1 of 1 images are in .*a\.json too.*detector\.dataset\.allow_shared=true"):
        run_study(config, DIGITS, routes, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*-*"))
    config, routes = tiny("pipelines=[detect_from_scratch]", override, "detector.dataset.allow_shared=true")
    out, outcome = run_study(config, DIGITS, routes, tmp_path / "runs")
    assert outcome.complete, outcome
    assert [row["pipeline"] for row in rows(out)] == ["detect_from_scratch"]
    assert "Data: 1 of 1 images of the test split are in training too" in (out / "report.md").read_text()
