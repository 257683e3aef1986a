"""A finished detector scored on another data set: classes by name, and no images that it was trained on."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from support.finished_detector import CLASSIFIER, finished_detector
from support.written_detections import written_detections

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return finished_detector(tmp_path_factory.mktemp("runs"), iterations=1)


def another(folder, photos, names=("right", "left"), boxes=(2, 1)):
    """A config of a data set of its own: test images are two of the photos, its ids are in another order."""
    folder.mkdir()
    images = [{"id": k, "file_name": name} for k, name in enumerate(("00.png", "04.jpg"), 1)]
    for image in images:
        shutil.copy(photos / image["file_name"], folder)
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    annotations = [{"id": k, "image_id": 1, "category_id": c, "bbox": [1, 1, 9, 9]} for k, c in enumerate(boxes, 1)]
    (folder / "test.json").write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    files = {"annotations": str(folder / "test.json"), "images": str(folder)}
    config = {
        "detector": {
            "dataset": {"coco": {"train": files, "test": files}},
            "train": {"iterations": 9, "batch_size": 2, "lr": 0.1},
        }
    }
    config |= {"evaluate": {"scenes": 1}, "machine": {"device": "cpu", "threads": 1}}
    (folder / "other.yaml").write_text(yaml.safe_dump(config))
    return folder / "other.yaml"


@pytest.fixture
def call(monkeypatch, capsys):
    def call(config, run, *words):
        words = ["train_det.py", config, "--eval-only", run, "--runs", run.parents[1], *words]
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        with pytest.raises(SystemExit) as exit_code:
            runpy.run_path(str(ROOT / "tools" / "train_det.py"), run_name="__main__")
        return exit_code.value.code, capsys.readouterr()

    return call


@pytest.mark.cpu_only  # digit by digit
def test_a_run_is_scored_on_the_test_images_of_another_data_set(runs, tmp_path, call):
    run, evaluation, photos = runs
    config = another(tmp_path / "other", photos)
    code, said = call(config, run)
    assert code == 0, said.err
    out = Path(said.out.splitlines()[-1].removeprefix("run directory: "))
    result = json.loads((out / "result.json").read_text())
    assert out != evaluation and result["evaluation"]["images"] == 2
    assert list(result["per_class"]) == ["left", "right"]  # in the order of the detector's own
    numbers = {7: 2, 3: 1}  # left and right, in the detector's data and here
    before = [d for d in written_detections(evaluation) if d["image_id"] == 10]
    now = [d for d in written_detections(out) if d["image_id"] == 1]
    assert now == [{**d, "image_id": 1, "category_id": numbers[d["category_id"]]} for d in before] != []
    assert call(config, evaluation)[1].out.splitlines()[-1] == f"run directory: {out}"  # the same, by its evaluation


def test_a_class_without_boxes_is_named(runs, tmp_path, call):
    run, _, photos = runs
    code, said = call(another(tmp_path / "other", photos, names=("left",), boxes=(1,)), run)
    out = Path(said.out.splitlines()[-1].removeprefix("run directory: "))
    (note,) = (n for n in json.loads((out / "result.json").read_text())["data"]["notes"] if "no box" in n)
    assert code == 0 and note.endswith("it has no box of 'right', which therefore has no AP")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("left", "tree"), "its boxes of 'tree' are of no class of the detector, which finds 'left', 'right'; classes"),
        (("Left", "Right"), "its boxes of 'Left', 'Right' are of no class of the detector"),
    ],
)
def test_other_classes_are_refused(runs, tmp_path, call, names, message):
    run, _, photos = runs
    code, said = call(another(tmp_path / "other", photos, names), run)
    assert code == 2 and message in said.err and len(said.err.splitlines()) == 1


def test_images_that_it_was_trained_on_are_refused(runs, tmp_path, call):
    run, _, photos = runs
    config = another(tmp_path / "other", photos)
    shutil.copy(run.parents[1] / "0.png", tmp_path / "other" / "00.png")
    code, said = call(config, run)
    assert code == 2 and "1 of 2 images are in" in said.err and "allow_shared=true" in said.err
    code, said = call(config, run, "detector.dataset.allow_shared=true")
    out = Path(said.out.splitlines()[-1].removeprefix("run directory: "))
    notes = json.loads((out / "result.json").read_text())["data"]["notes"]
    assert code == 0 and "1 of 2 images of the test split are in training too" in notes


def test_what_holds_no_detector_is_refused(runs, tmp_path, call):
    run, _, photos = runs
    config = another(tmp_path / "other", photos)
    code, said = call(config, CLASSIFIER.run(run.parents[1]).path)
    assert code == 2 and "a run of kind 'train_classifier' holds no detector; choose one of kind" in said.err
    code, said = call(config, run, "--num-gpus", "2")
    assert code == 2 and "--eval-only scores in one process" in said.err
