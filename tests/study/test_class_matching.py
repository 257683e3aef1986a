"""Training and test files, each right alone: their classes are matched by name before anything is trained."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.tiny_study import DIGITS, TINY

from detect.data import class_names
from detect.data.open import detection_data, open_detection
from detect.evaluate import precision_recall, score_detections
from detect.settings import DetectorData
from study.commands.check_data import add_arguments, main
from study.plan.checks import check_detection_data
from study.plan.load import load_study
from study.run.launch import launch, make_parser
from study.run.study import run_study
from study.stages.network import read_weights
from study.stages.stage import Stage

CATEGORIES = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]


def write(folder, name, categories=CATEGORIES, seed=0, boxes=(1, 2)):
    """Two images with a box of each category id in `boxes`."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for k in (1, 2):
        pixels = np.random.default_rng([seed, k]).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{k}.png")
        images.append({"id": k, "file_name": f"{name}{k}.png", "width": 48, "height": 32})
        for place, category in enumerate(boxes):
            bbox = [4 + 20 * place, 4, 12, 12 + k]
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": k, "category_id": category, "bbox": bbox, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(content))


def both(folder):
    coco = {side: {"annotations": folder / f"{side}.json", "images": folder} for side in ("train", "test")}
    return detection_data(DetectorData.model_validate({"coco": coco}))


def opened(folder):
    return [open_detection(both(folder), side, folder / "data") for side in ("train", "test")]


def check(folder):
    files = [str(word) for side in ("train", "test") for word in ("--coco", folder / f"{side}.json", folder)]
    return launch(lambda: main(make_parser(None, add_arguments).parse_args(files)))


def begin(folder):
    """What a study does before its first stage."""
    data = both(folder)
    trained = Stage("train_detector", {"data": data}, (), 0)
    check_detection_data([trained, Stage("evaluate", {"data": data, "split": "test"}, (), 0)], folder)


def test_ids_that_differ_are_matched_by_name(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}], seed=1, boxes=(2, 1))
    train, test = opened(tmp_path)
    assert train.split.classes == test.split.classes == ("red", "blue")
    assert [box.label for box in train.split.boxes()] == [box.label for box in test.split.boxes()] == [0, 1, 0, 1]
    assert test.split.category_ids == (2, 1)  # detections are written for the test file's own readers
    found = [{"image_id": k, "category_id": 2, "bbox": [4, 4, 12, 12 + k], "score": 1.0} for k in (1, 2)]
    scores = score_detections(test, found)
    assert scores["per_class"] == {"red": pytest.approx(100), "blue": 0} and scores["AP"] == pytest.approx(50)
    curves = precision_recall(test, found)["classes"]
    assert max(curves["red"]["precision"]) == 1 and max(curves["blue"]["precision"]) == 0
    assert "'red', 'blue' have other ids than in" in test.split.summary()["notes"][0]
    begin(tmp_path)
    assert check(tmp_path) == 0


@pytest.mark.parametrize("names", [("cat", "dog"), ("red", "Blue"), ("red", "blue ")])
def test_names_that_differ_are_refused_with_both_lists(tmp_path, names, capsys):
    write(tmp_path, "train")
    write(tmp_path, "test", [{"id": k, "name": name} for k, name in enumerate(names, 1)], seed=1)
    assert check(tmp_path) == 2
    lists = f"'red', 'blue' in {tmp_path}/train.json, {names[0]!r}, {names[1]!r} in {tmp_path}/test.json"
    assert lists in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"test\.json: its boxes of .* have no category in") as error:
        begin(tmp_path)
    assert lists in str(error.value)


def test_a_class_with_boxes_that_training_does_not_know_is_refused(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", [*CATEGORIES, {"id": 3, "name": "green"}], seed=1, boxes=(1, 2, 3))
    with pytest.raises(ValueError, match=r"test\.json: its boxes of 'green' have no category in .*train\.json"):
        begin(tmp_path)
    write(tmp_path, "test", [{"id": 0, "name": "root"}, *CATEGORIES], seed=1)  # one without boxes does no harm
    begin(tmp_path)
    assert "'root', without a box, has no match in" in opened(tmp_path)[1].split.summary()["notes"][0]


def test_a_class_that_the_test_file_lacks_has_no_ap_and_is_named(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", [{"id": 2, "name": "blue"}], seed=1, boxes=(2,))
    train, test = opened(tmp_path)
    assert class_names(test) == class_names(train) == ["red", "blue"]
    found = [{"image_id": k, "category_id": 2, "bbox": [4, 4, 12, 12 + k], "score": 1.0} for k in (1, 2)]
    wrong = {"image_id": 1, "category_id": test.split.category_ids[0], "bbox": [1, 1, 9, 9], "score": 1.0}
    scores = score_detections(test, [*found, wrong])
    assert scores["per_class"] == {"red": None, "blue": pytest.approx(100)} and scores["AP"] == pytest.approx(100)
    assert test.split.summary()["notes"] == [f"{tmp_path}/test.json: it has no box of 'red', which therefore has no AP"]
    begin(tmp_path)
    assert check(tmp_path) == 0


def test_a_category_without_a_box_is_no_class_of_the_detector_and_is_named(tmp_path, capsys):
    root = {"id": 0, "name": "shapes", "supercategory": "none"}
    for seed, side in enumerate(("train", "test")):
        write(tmp_path, side, [root, *CATEGORIES], seed=seed)
    train, test = opened(tmp_path)
    assert class_names(train) == class_names(test) == ["red", "blue"]
    assert train.split.category_ids == test.split.category_ids == (1, 2)
    assert [box.label for box in train.split.boxes()] == [0, 1, 0, 1]
    sentence = "train.json: category 'shapes' has no box: the detector has no output for it"
    assert sentence in train.split.summary()["notes"][0]
    assert check(tmp_path) == 0
    assert sentence in capsys.readouterr().out


def test_a_class_that_only_the_test_file_has_boxes_of_is_measured_and_named(tmp_path):
    write(tmp_path, "train", boxes=(2,))
    write(tmp_path, "test", seed=1)
    train, test = opened(tmp_path)
    assert class_names(train) == class_names(test) == ["red", "blue"]
    assert "train.json: category 'red' has no box, but it has in" in train.split.summary()["notes"][0]
    assert score_detections(test, [])["per_class"] == {"red": 0, "blue": 0}


@pytest.mark.slow
def test_a_study_measures_the_same_whatever_ids_the_test_file_has(tmp_path):
    """Result and report name what was decided about classes; the detector has an output for each class with boxes."""
    write(tmp_path / "a", "train", [{"id": 0, "name": "shapes"}, *CATEGORIES])
    write(tmp_path / "a", "test", seed=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b", "test", [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}], seed=1, boxes=(2, 1))
    rows, notes = [], []
    for folder in (tmp_path / "a", tmp_path / "b"):
        sides = ", ".join(f"{s}: {{annotations: {folder}/{s}.json, images: {folder}}}" for s in ("train", "test"))
        changes = [word for word in TINY if ".digits" not in word]
        changes += ["pipelines=[unpruned]", "machine.precision=float32", f"detector.dataset={{coco: {{{sides}}}}}"]
        config, routes = load_study(DIGITS, changes)
        out, outcome = run_study(config, DIGITS, routes, folder / "runs")
        assert outcome.complete
        rows.append(json.loads((out / "comparison.json").read_text())["rows"][0])
        result = routes[0].evaluation.run(folder / "runs").read_result()
        notes.append(result["data"]["notes"])
        trained = routes[0].evaluation.parents[0].run(folder / "runs")
        assert read_weights(trained.weights)["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
        assert any("category 'shapes' has no box" in note for note in trained.read_result()["data"]["notes"])
        assert "has no box: the detector has no output for it" in (out / "report.md").read_text()
    assert rows[0]["AP"] == rows[1]["AP"] and rows[0]["per_class"] == rows[1]["per_class"]
    assert notes[0] == [] and "'red', 'blue' have other ids than in" in notes[1][0]
