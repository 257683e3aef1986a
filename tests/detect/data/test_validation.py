"""The share of the training images that is kept for validation: seeded, disjoint, said; nothing changes without it."""

import pytest
from support.coco_layout import coco_box, encoded, picture, write_coco
from support.voc_layout import voc_object, write_voc

from detect.data.draw import drawn
from detect.data.open import detection_data, open_detection, splits_of
from detect.settings import DetectorData
from study.plan.checks import _check_splits
from study.stages.contents import Contents
from study.stages.stage import Stage

NAMES = [f"{k:02d}" for k in range(20)]


def voc(root, objects=None):
    cat, dog = voc_object("cat", (1, 1, 9, 9)), voc_object("dog", (11, 11, 29, 29))
    write_voc(root, objects or {name: [cat, dog] for name in NAMES}, "train")
    write_voc(root, {"t": [cat]}, "test", size=(96, 64))
    picture(99, size=(96, 64)).save(root / "JPEGImages" / "t.jpg")  # write_voc numbers its noise anew
    return {"voc": {"root": root, "train": "train", "test": "test"}}


def coco(folder, same=()):
    files = {f"{k}.png": encoded(picture(0 if k in same else k), "PNG") for k in range(20)}
    train = write_coco(folder / "train", files, [coco_box(k, k, [4, 4, 8, 8]) for k in range(1, 21)])
    test = write_coco(folder / "test", {"a.png": encoded(picture(77), "PNG")})
    sides = {"train": train, "test": test}
    return {"coco": {side: {"annotations": s.annotations, "images": s.images} for side, s in sides.items()}}


def read(section, root, **more):
    data = detection_data(DetectorData.model_validate({**section, **more}))
    return {split: open_detection(data, split, root).split for split in splits_of(data)}


@pytest.mark.parametrize("make", [voc, coco])
def test_validation_images_are_a_seeded_share_of_those_of_training(tmp_path, make):
    section = make(tmp_path)
    whole = read(section, tmp_path)
    assert list(whole) == ["train", "test"]
    found = read(section, tmp_path, validation=0.2)
    ids = {split: [image.id for image in found[split].images] for split in found}
    assert len(ids["val"]) == 4 and len(ids["train"]) == 16
    assert sorted(ids["train"] + ids["val"]) == [image.id for image in whole["train"].images]
    assert ids["train"] == sorted(ids["train"]) and ids["test"] == [image.id for image in whole["test"].images]
    assert {split.classes for split in found.values()} == {whole["train"].classes}
    note = "4 of 20 training images are kept for validation (detector.dataset.validation 0.2, seed 0)"
    for split in ("train", "val"):
        assert found[split].summary()["notes"][-1] == f"{found[split].source}: {note}"
    assert ids == {s: [i.id for i in v.images] for s, v in read(section, tmp_path, validation=0.2).items()}
    other = read(section, tmp_path, validation=0.2, validation_seed=1)["val"]
    assert {image.id for image in other.images} != set(ids["val"])
    _check_splits(detection_data(DetectorData.model_validate({**section, "validation": 0.2})), set(found), tmp_path)


def test_the_draw_asks_the_seed_and_the_name_alone():
    assert drawn("abcdefgh", 0.25, 0) == drawn("hgfedcba", 0.25, 0)
    assert drawn("abcdefgh", 0.25, 0) < drawn("abcdefgh", 0.5, 0)


@pytest.mark.parametrize("make", [voc, coco])
def test_a_hash_changes_only_where_images_are_kept(tmp_path, make):
    section = make(tmp_path)

    def name(**more):
        data = Contents(tmp_path / "runs").detection(DetectorData.model_validate({**section, **more}))
        return Stage("train_detector", {"data": data, "train": {}, "model": {}}, (), 0).hash, data

    (off, data), (on, with_val) = name(), name(validation=0.2)
    assert data.keys() == {next(iter(section)), "images"} and data["images"].keys() == {"train", "test"}
    assert with_val["validation"] == {"share": 0.2, "seed": 0}
    assert with_val["images"].keys() == {"train", "val", "test"}
    assert off == name(validation_seed=3)[0]
    assert len({off, on, name(validation=0.3)[0], name(validation=0.2, validation_seed=1)[0]}) == 4


def test_generated_scenes_have_a_validation_split_of_their_own(tmp_path):
    scenes = {"image_size": 64, "train": 4, "val": 3, "test": 2, "digits_per_scene": [1, 2], "digit_size": [24, 32]}
    found = read({"digits": scenes}, tmp_path)
    assert {split: len(found[split].images) for split in found} == {"train": 4, "val": 3, "test": 2}
    with pytest.raises(ValueError, match=r"`digits` have validation images of their own"):
        DetectorData.model_validate({"digits": scenes, "validation": 0.1})


def test_without_a_share_there_is_no_such_split(tmp_path):
    data = detection_data(DetectorData.model_validate(voc(tmp_path)))
    with pytest.raises(ValueError, match=r"there is no validation split; detector.dataset.validation"):
        open_detection(data, "val", tmp_path)


def test_a_share_that_takes_all_of_a_class_or_leaves_nothing_is_refused(tmp_path):
    cat = voc_object("cat", (1, 1, 9, 9))
    first = min(drawn(NAMES, 0.05, 0))
    rare = {name: [voc_object("emu", (1, 1, 9, 9))] if name == first else [cat] for name in NAMES}
    section = voc(tmp_path, rare)
    with pytest.raises(ValueError, match=r"with seed 0 would keep every box of 'emu'; choose another validation_seed"):
        read(section, tmp_path, validation=0.05)
    assert read(section, tmp_path, validation=0.05, validation_seed=1)
    with pytest.raises(ValueError, match=r"validation 0.01 of 20 images leaves a side without any"):
        read(section, tmp_path, validation=0.01)
    empty = {name: [] if name == first else [cat] for name in NAMES}
    with pytest.raises(ValueError, match="would keep no box at all"):
        read(voc(tmp_path / "empty", empty), tmp_path, validation=0.05)


def test_a_validation_image_with_the_content_of_a_training_image_is_refused(tmp_path):
    section = coco(tmp_path, same=range(10))
    data = {**section, "validation": 0.2}
    with pytest.raises(ValueError, match=r"of 4 images are in .*all\.json too, .* the same content as .*"):
        _check_splits(detection_data(DetectorData.model_validate(data)), {"train", "val"}, tmp_path)
    allowed = detection_data(DetectorData.model_validate({**data, "allow_shared": True}))
    _check_splits(allowed, {"train", "val"}, tmp_path)
