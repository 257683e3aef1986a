"""Validation images that a data set has itself: used as such, told, part of what names a run."""

import pytest
import yaml
from support.coco_layout import coco_box, encoded, picture, write_coco
from support.voc_layout import voc_object, write_voc
from support.yolo_layout import write_yolo

from detect.data.open import annotations_now, detection_data, open_detection, splits_of
from detect.settings import DetectorData
from study.plan.checks import _check_splits
from study.stages.contents import Contents

CAT, DOG = "0 0.5 0.5 0.25 0.5", "1 0.25 0.5 0.5 1"
PLACES = {"train": "images/train", "val": "images/val", "test": "images/test"}


def yolo(root):
    """Roboflow's and Ultralytics' three folders; the validation images have no dog."""
    splits = {"images/train": {"a": [CAT, DOG], "b": [DOG]}, "images/val": {"c": [CAT]}, "images/test": {"d": [DOG]}}
    return {"yolo": {"yaml": write_yolo(root, splits, **PLACES)}}


def voc(root):
    cat, dog = voc_object("cat", (1, 1, 9, 9)), voc_object("dog", (11, 11, 29, 29))
    for name, images in (("train", {"a": [cat, dog], "b": [dog]}), ("valid", {"c": [cat]}), ("test", {"d": [dog]})):
        write_voc(root, images, name)
    for seed, name in enumerate("abcd"):
        picture(seed, size=(96, 64)).save(root / "JPEGImages" / f"{name}.jpg")
    return {"voc": {"root": root, "train": "train", "val": "valid", "test": "test"}}


def coco(root):
    root.mkdir(exist_ok=True)
    sides = {}
    for seed, (side, folder) in enumerate((("train", "train"), ("val", "valid"), ("test", "test"))):
        files = {f"{side}{k}.png": encoded(picture(10 * seed + k), "PNG") for k in range(2 if side == "train" else 1)}
        boxes = [coco_box(1, 1, [4, 4, 8, 8])]
        if side != "val":
            boxes.append(coco_box(2, 1, [1, 1, 5, 5]) | {"category_id": 7})
        sides[side] = {"annotations": write_coco(root / folder, files, boxes).annotations}
    return {"coco": sides}


def without(section):
    """The same data set, whose validation images are not named."""
    ((name, keys),) = section.items()
    return {name: {key: value for key, value in keys.items() if key != "val"}}


def read(section, **more):
    return detection_data(DetectorData.model_validate({**section, **more}))


@pytest.mark.parametrize("make", [yolo, voc, coco])
def test_they_validate_and_nothing_is_trained_on_them(make, tmp_path):
    data = read(make(tmp_path / "mine"))
    assert splits_of(data) == ("train", "val", "test")
    found = {split: open_detection(data, split, tmp_path).split for split in splits_of(data)}
    assert {split: len(one.images) for split, one in found.items()} == {"train": 2, "val": 1, "test": 1}
    assert len({one.classes for one in found.values()}) == 1 and len(found["val"].classes) == 2
    for split in ("train", "val"):
        note = found[split].notes[-1]
        assert note.endswith("its 1 images are for validation, nothing is trained on them"), note
    assert any("it has no box of" in note for note in found["val"].notes)  # the second class
    _check_splits(data, {"train", "val", "test"}, tmp_path)


@pytest.mark.parametrize("make", [yolo, voc, coco])
def test_they_are_part_of_what_names_a_run(make, tmp_path):
    section = make(tmp_path / "mine")
    data = Contents(tmp_path / "runs").detection(DetectorData.model_validate(section))
    assert data["images"].keys() == {"train", "val", "test"} and annotations_now(data) == data
    (name,) = section
    assert data[name]["val"]["sha256"] not in (data[name]["train"]["sha256"], data[name]["test"]["sha256"])
    if make is not yolo:  # whose YAML names them
        assert data[name].keys() - read(without(section))[name].keys() == {"val"}


@pytest.mark.parametrize("make", [yolo, voc, coco])
def test_a_share_of_the_training_images_beside_them_is_refused(make, tmp_path):
    section = make(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"dataset\.validation: 0\.2: `\w+` has validation images of its own \(val\)"):
        read(section, validation=0.2)
    if make is not yolo:
        assert "val" in splits_of(read(without(section), validation=0.5))


def test_a_config_may_ask_for_what_validates(tmp_path):
    for make in (yolo, voc, coco):
        section = make(tmp_path / make.__name__)
        assert DetectorData.model_validate(section).has_validation
        assert make is yolo or not DetectorData.model_validate(without(section)).has_validation


@pytest.mark.parametrize(
    ("said", "more", "expected"),
    [
        ({"train": "images/train", "val": "images/val"}, {}, {"train": 2, "test": 1}),  # val is all there is to test on
        (PLACES, {"test": "images/val"}, {"train": 2, "test": 1}),
        (PLACES, {"val": "images/test", "test": "images/val"}, {"train": 2, "val": 1, "test": 1}),
        ({"train": "images/train", "test": "images/test"}, {}, {"train": 2, "test": 1}),
    ],
)
def test_what_yolos_val_is_for(tmp_path, said, more, expected):
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"names": ["cat", "dog"], **said}))
    data = read({"yolo": {"root": tmp_path, **more}})
    assert {split: len(open_detection(data, split, tmp_path).split.images) for split in splits_of(data)} == expected


def test_an_image_that_is_trained_on_too_is_refused(tmp_path):
    section = voc(tmp_path)
    section["voc"]["train"] = "valid"
    with pytest.raises(ValueError, match="1 of 1 images are in"):
        _check_splits(read(section), {"train", "val"}, tmp_path)


def test_a_draw_has_no_place_for_them(tmp_path):
    with pytest.raises(ValueError, match=r"split draws training and test images; leave out val: valid"):
        DetectorData.model_validate({"voc": {"root": voc(tmp_path)["voc"]["root"], "val": "valid", "split": {}}})
