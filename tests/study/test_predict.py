"""What a detector finds on pictures is what its evaluation found there, from a run or from an exported file."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.finished_detector import CLASSIFIER, NETWORK, finished_detector, write_run
from support.written_detections import written_detections

from study.export import export_run
from study.predict import predict
from study.stages.stage import Stage, load_stage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return finished_detector(tmp_path_factory.mktemp("runs"))


def evaluated(evaluation):
    """The evaluation's own detections by picture: class, score, x, y, width, height; best first."""
    names = {3: "right", 7: "left"}
    files = sorted((evaluation.parents[1] / "photos").iterdir())
    return by_picture(
        (files[one["image_id"] // 10 - 1].name, names[one["category_id"]], one)
        for one in written_detections(evaluation)
    )


def predicted(out):
    coco = json.loads((out / "detections.coco.json").read_text())
    files = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    return by_picture((files[one["image_id"]], names[one["category_id"]], one) for one in coco["annotations"])


def by_picture(found):
    table = {}
    for file, name, one in found:
        table.setdefault(file, []).append((name, [one["score"], *one["bbox"]]))
    return table


def agree(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for file, rows in expected.items():
        assert [name for name, _ in found[file]] == [name for name, _ in rows], file
        np.testing.assert_allclose([v for _, v in found[file]], [v for _, v in rows], **tolerance)


@pytest.mark.cpu_only  # digit by digit
def test_a_run_finds_what_its_evaluation_found(runs, tmp_path):
    run, evaluation, photos = runs
    expected = evaluated(evaluation)
    assert len(expected) >= 15 and sum(map(len, expected.values())) > 60
    said = predict(run, [photos], out=tmp_path / "out", min_score=0)
    assert said["pictures"] == 20 and said["notes"] == []
    agree(predicted(tmp_path / "out"), expected, rtol=0, atol=0)
    predict(evaluation, sorted(photos.iterdir()), out=tmp_path / "again", min_score=0)
    agree(predicted(tmp_path / "again"), expected, rtol=0, atol=0)


@pytest.mark.cpu_only  # exported files compute there
@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
def test_an_exported_file_finds_what_the_evaluation_of_its_run_found(runs, tmp_path, file_format):
    run, evaluation, photos = runs
    export_run(run, file_format, out=tmp_path / "net")
    predict(tmp_path / "net", [photos], out=tmp_path / "out", min_score=0)
    agree(predicted(tmp_path / "out"), evaluated(evaluation), rtol=1e-3, atol=0.01)


@pytest.mark.cpu_only  # digit by digit
def test_a_detector_that_was_pruned_and_not_trained_since_looks_too(runs, tmp_path):
    run, evaluation, photos = runs
    pruned = Stage("prune_detector", {"method": "l1_filter"}, (load_stage(run),), 0)
    write_run(pruned, run.parents[1], None, {})
    folder = pruned.run(run.parents[1])
    for name in ("plan.json", "weights.safetensors"):
        shutil.copy(run / name, folder.path)
    folder.write_result({"network": NETWORK.as_result()})
    predict(folder.path, [photos], out=tmp_path / "out", min_score=0)
    agree(predicted(tmp_path / "out"), evaluated(evaluation), rtol=0, atol=0)


def test_pictures_are_drawn_and_scores_count(runs, tmp_path):
    run, evaluation, photos = runs
    scores = sorted(row[0] for rows in evaluated(evaluation).values() for _, row in rows)
    said = predict(run, [photos], out=tmp_path / "out", min_score=scores[-20])
    assert said["detections"] == 20 < len(scores)
    drawn = sorted((tmp_path / "out" / "pictures" / "photos").iterdir())
    assert [path.name for path in drawn] == [f"{path.name}.png" for path in sorted(photos.iterdir())]
    with Image.open(drawn[17]) as image:
        assert image.width < image.height  # turned upright
    coco = json.loads((tmp_path / "out" / "detections.coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]][:2] == ["photos/00.png", "photos/01.jpg"]
    assert coco["categories"] == [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]


def test_a_picture_that_cannot_be_read_is_left_out_and_named(runs, tmp_path):
    run, _, photos = runs
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    content = (photos / "01.jpg").read_bytes()
    (tmp_path / "mine" / "half.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "mine" / "deep" / "whole.jpg").write_bytes(content)
    (tmp_path / "mine" / "notes.txt").write_text("no picture")
    said = predict(run, [tmp_path / "mine"], out=tmp_path / "out", min_score=0.5)
    assert said["pictures"] == 1 and "half.jpg" in said["notes"][0]
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["whole.jpg.png"]


def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(runs, tmp_path):
    run, _, photos = runs
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.pt").write_bytes(b"none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "00.png").write_bytes((photos / "00.png").read_bytes())
    classifier = CLASSIFIER.run(run.parents[1]).path
    for source, places, message in (
        (run, [tmp_path / "no"], "no: there is no such picture or folder"),
        (run, [tmp_path / "empty"], r"empty: no picture in this folder \(\.jpg"),
        (run, [photos / "00.png", tmp_path / "other" / "00.png"], "would both be called 00.png"),
        (classifier, [photos], "a run of kind 'train_classifier' holds no detector; choose one of kind train_det"),
        (tmp_path / "net.pt", [photos], r"net\.pt\.json, which `prune-transfer export` writes beside it, is not there"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(source, places, out=tmp_path / "out", min_score=0.5)
    with pytest.raises(ValueError, match="--score 2: a score is a number from 0 to 1"):
        predict(run, [photos], out=tmp_path / "out", min_score=2)
    with pytest.raises(ValueError, match="is not empty; name another folder"):
        predict(run, [photos], out=photos, min_score=0.5)
    (tmp_path / "net.pt.json").write_text(json.dumps({"task": "classifier"}))
    with pytest.raises(ValueError, match="says that it is no detector but a classifier"):
        predict(tmp_path / "net.pt", [photos], out=tmp_path / "out", min_score=0.5)
    about = {"task": "detector", "format": "torchscript", "classes": None, "num_classes": 2, "input": {}}
    (tmp_path / "net.pt.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="does not say how pictures are scaled, as older ones; export it again"):
        predict(tmp_path / "net.pt", [photos], out=tmp_path / "out", min_score=0.5)
    about["input"] = {"shorter_side": 64, "longest_side": 96}
    (tmp_path / "net.pt.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"net\.pt: not readable as torchscript"):
        predict(tmp_path / "net.pt", [photos], out=tmp_path / "out", min_score=0.5)
    assert not (tmp_path / "out").exists()


def test_the_launcher_prints_what_came_out(runs, monkeypatch, capsys, tmp_path):
    run, _, photos = runs
    words = ["predict.py", run, photos / "00.png", "--score", "0.2", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with pytest.raises(SystemExit) as exit_code:
        runpy.run_path(str(ROOT / "tools" / "predict.py"), run_name="__main__")
    assert exit_code.value.code == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["pictures"] == 1 and said["out"] == str(tmp_path / "out")
