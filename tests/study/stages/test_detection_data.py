"""What of a detection data set enters a stage's hash, and how it is opened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.voc_layout import voc_object, write_annotation, write_voc

from detect.data.open import detection_data, open_detection
from detect.settings import DetectorData
from study.stages.stage import Stage


def _data(root, allow_shared=False, **more):
    voc = {"root": root, "train": "train", "test": "test", **more}
    return detection_data(DetectorData.model_validate({"voc": voc, "allow_shared": allow_shared}))


def _hash(root, **more):
    return Stage("evaluate", {"data": _data(root, **more)}, (), 0).hash


def _write(root):
    write_voc(root, {"a": [voc_object("cat", (1, 1, 9, 9))]}, "train")
    return write_voc(root, {"b": [voc_object("dog", (1, 1, 9, 9), difficult=1)]}, "test")


def test_the_annotations_count_and_not_where_they_are(tmp_path):
    one, two = _write(tmp_path / "one"), _write(tmp_path / "two")
    assert _hash(one) == _hash(two)
    assert _hash(one) != _hash(one, year=2007)
    assert _hash(one) != _hash(one, classes=["dog", "cat"])
    assert _hash(one) == _hash(one, classes=["cat", "dog"])
    assert _hash(one) == _hash(one, allow_shared=False) != _hash(one, allow_shared=True)
    before = _hash(two)
    write_annotation(two, "b", [voc_object("dog", (1, 1, 9, 10))])
    assert _hash(two) != before


def test_both_splits_have_the_classes_of_both(tmp_path):
    data = _data(_write(tmp_path), year=2007)
    for split, label in (("train", 0), ("test", 1)):
        dataset = open_detection(data, split, tmp_path / "data")
        assert dataset.split.classes == ("cat", "dog") and dataset.split.voc_year == 2007
        assert [box.label for box in dataset.split.boxes()] == [label]
    assert open_detection(data, "test", tmp_path / "data") is dataset


def test_training_images_of_two_folders_are_joined(tmp_path):
    one, two = _write(tmp_path / "one"), tmp_path / "two"
    write_voc(two, {"c": [voc_object("bird", (1, 1, 9, 9))], "d": []}, "trainval")
    assert _hash(one, also=[]) == _hash(one) != _hash(one, also=[{"root": two}])
    data = _data(one, also=[{"root": two}])
    train, test = (open_detection(data, split, tmp_path / "data").split for split in ("train", "test"))
    assert train.classes == test.classes == ("bird", "cat", "dog")
    assert [(image.id, [box.label for box in image.boxes]) for image in train.images] == [
        ("a", [1]),
        ("c", [0]),
        ("d", []),
    ]
    assert [image.id for image in test.images] == ["b"]


def test_an_image_id_in_two_folders_is_refused(tmp_path):
    one, two = _write(tmp_path / "one"), _write(tmp_path / "two")
    data = _data(one, also=[{"root": two, "train": "train"}])
    with pytest.raises(ValueError, match=r"one/.*train\.txt and .*two/.*train\.txt both have an image a: rename one"):
        _ = open_detection(data, "train", tmp_path / "data").split


def test_pascal_voc_is_where_detectron2_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_voc(tmp_path / "VOC2007", {"000001": [voc_object("cat", (1, 1, 9, 9))]}, "trainval")
    write_voc(tmp_path / "VOC2007", {"000002": [voc_object("cat", (1, 1, 9, 9))]}, "test")
    write_voc(tmp_path / "VOC2012", {"2008_000002": [voc_object("dog", (1, 1, 9, 9))]}, "trainval")
    joined = detection_data(DetectorData.model_validate({"voc": {"year": 2007, "also": [{"year": 2012}]}}))
    train = open_detection(joined, "train", tmp_path / "data").split
    assert [image.id for image in train.images] == ["000001", "2008_000002"] and train.voc_year == 2007


def test_an_absent_annotation_is_left_to_the_check_and_an_absent_list_is_not(tmp_path):
    root = _write(tmp_path)
    (root / "Annotations" / "b.xml").unlink()
    assert _data(root)["voc"]["classes"] == ["cat"]
    with pytest.raises(ValueError, match=r"nope\.txt: cannot be read"):
        _data(root, test="nope")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "exactly one of `digits`, `coco`, `voc` and `yolo`"),
        ({"voc": {}, "digits": {}}, "exactly one of `digits`, `coco`, `voc` and `yolo`"),
        ({"voc": {"year": 2010}}, "2007 or 2012"),
        ({"voc": {"classes": ["a", "a"]}}, "repeat themselves"),
        ({"voc": {"classes": []}}, "at least 1"),
    ],
)
def test_sections_that_do_not_fit_are_refused(section, message):
    with pytest.raises(ValueError, match=message):
        DetectorData.model_validate(section)


NEW = """
import sys
from pathlib import Path
from detect.data.sets import DATASETS, voc
from detect.data.sets.dataset import DataSet
from training.options import Section

class Mine(Section):
    root: Path
    '''Folder of my data.'''

def at(paths):
    return {"root": Path(paths["root"]), "train": "train", "test": "test"}

def identity(mine):
    return voc.VOC.identity(voc.VocData(**at(mine.model_dump())))

DATASETS["mine"] = DataSet(
    Mine, "My data.", lambda mine: f"mine in {mine.root}", identity, voc.VOC.open, voc.VOC.files
)

from detect.data.open import annotations_now, detection_data, open_detection
from detect.settings import DetectorData
from study.config.keys import in_lines, keys_at

found = DetectorData.model_validate({"mine": {"root": sys.argv[1]}})
data = detection_data(found)
assert found.title == f"mine in {sys.argv[1]}" and list(data) == ["mine"] and annotations_now(data) == data
assert open_detection(data, "test", Path("data")).split.classes == ("cat", "dog")
assert "Folder of my data." in in_lines(keys_at("study", "detector.dataset.mine"))
try:
    DetectorData.model_validate({"mine": {"root": "x"}, "digits": {}})
except ValueError as error:
    assert "exactly one of `digits`, `coco`, `voc`, `yolo` and `mine`" in str(error)
"""


def test_a_new_data_set_needs_its_own_file_and_a_line_of_the_registry(tmp_path):
    root = Path(__file__).parents[3]
    script = tmp_path / "new.py"  # meanings of keys are read from the source
    script.write_text(NEW)
    command = [sys.executable, str(script), str(_write(tmp_path / "mine"))]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
