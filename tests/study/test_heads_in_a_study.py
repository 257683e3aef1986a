"""Every other head through every kind of stage, from a config to a report, an exported file and what that finds."""

import csv

import pytest
from support.finished_detector import finished_detector
from support.tiny_detector import two_squares
from support.tiny_study import DIGITS, tiny
from support.written_detections import written_detections

from detect.heads import HEADS
from study.export import export_run
from study.plan.named import PIPELINES
from study.predict import predict
from study.run.study import run_study
from training.files import read_json


def study(head, folder, *changes):
    """The finished tiny study of a head: its folder, routes and rows by route."""
    idle = [f"detector.model.{name}=null" for name in HEADS[head].idle]
    sizes = ["detector.model.anchor_sizes=null", "detector.model.strides=[4, 8]"] if head == "retinanet" else []
    config, routes = tiny(f"detector.model.head={head}", *idle, *sizes, "machine.precision=float32", *changes)
    out, outcome = run_study(config, DIGITS, routes, folder)
    assert outcome.complete, outcome
    rows = {row["pipeline"]: row for row in read_json(out / "comparison.json")["rows"]}
    assert rows.keys() == {route.pipeline for route in routes}
    return out, routes, rows


def check_costs(out, rows):
    """All costs are there, and what is pruned costs less."""
    dense = rows["unpruned"]
    costs = ("detector_macs", "detector_params", "backbone_macs", "activation_bytes")
    for name, row in rows.items():
        assert row["latency_ms"] > 0 and row["train_macs"] > 0
        assert all(0 < row[cost] < dense[cost] for cost in costs) or name == "unpruned", name
    assert (out / "report.html").stat().st_size > 100_000
    with (out / "comparison.csv").open() as file:
        assert {line["pipeline"] for line in csv.DictReader(file)} == rows.keys()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cascade", "retinanet"])
def test_every_route_is_compared(head, tmp_path):
    out, routes, rows = study(head, tmp_path, f"pipelines=[{', '.join(PIPELINES)}]", "detector.prune_at=0.5")
    check_costs(out, rows)
    for route in routes:
        about = export_run(route.evaluation.parents[0].run(tmp_path).path, "torchscript")
        assert about["num_classes"] == 10 and about["score_threshold"] == 0.05
        assert about["costs"]["params"] == rows[route.pipeline]["detector_params"]


@pytest.mark.slow
def test_masks_are_learned_and_measured_on_every_route_that_prunes(tmp_path):
    (tmp_path / "data").mkdir()
    files = str(two_squares(tmp_path / "data").annotations)
    data = f"detector.dataset={{coco: {{train: {{annotations: {files}}}, test: {{annotations: {files}}}}}}}"
    names = "pipelines=[unpruned, prune_then_transfer, transfer_then_prune]"
    shared = "detector.dataset.allow_shared=true"
    out, routes, rows = study("mask", tmp_path / "runs", data, shared, names, "detector.prune_scope=backbone+fpn")
    check_costs(out, rows)
    for route in routes:
        result = route.evaluation.run(tmp_path / "runs").read_result()
        assert 0 <= result["metrics"]["mask_AP"] <= result["metrics"]["mask_AP50"] <= 100
        assert result["evaluation"]["metric"].endswith("COCO mask AP, likewise")
        assert rows[route.pipeline]["mask_AP"] == result["metrics"]["mask_AP"]
    page = (out / "report.html").read_text()
    assert "AP, AP50, AP75, mask AP: mean" in page and "the mask head on as many objects" in page


@pytest.mark.slow
@pytest.mark.parametrize("head", ["cascade", "retinanet", "mask"])
def test_exported_files_find_what_the_evaluation_of_their_run_found(head, tmp_path):
    changes = dict.fromkeys(HEADS[head].idle)
    if head == "retinanet":  # so that it finds something after forty steps
        changes["overrides"] = {"MODEL.RETINANET.NORM": "BN"}
    run, evaluation, photos = finished_detector(tmp_path / "runs", head=head, **changes)
    expected = written_detections(evaluation)
    assert len(expected) > 60
    for file_format in ("torchscript", "onnx"):
        export_run(run, file_format, out=tmp_path / file_format)
        found = predict(tmp_path / file_format, [photos], out=tmp_path / f"out-{file_format}", min_score=0)
        assert found["detections"] == len(expected)
        coco = read_json(tmp_path / f"out-{file_format}" / "detections.coco.json")
        for one, other in zip(coco["annotations"], expected, strict=True):
            assert [one["score"], *one["bbox"]] == pytest.approx([other["score"], *other["bbox"]], rel=1e-3, abs=0.01)
            assert ("segmentation" in one) == ("segmentation" in other) == (head == "mask")
        assert len(list((tmp_path / f"out-{file_format}" / "pictures").rglob("*.png"))) == 20
