"""Scenes keep the splits apart, their boxes are tight, and they are written once, whole, as COCO JSON."""

import json
import os

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from pycocotools.coco import COCO

from classify.data.digits import scan_indices
from classify.data.images import SPLITS
from classify.data.photos import photo_regions, render_crop
from detect.scenes import (
    PlacedDigit,
    SceneOptions,
    coco_json,
    overlap,
    scenes,
    visible_box,
    write_scenes,
)

FEW = {"train": 3, "val": 2, "test": 2}


def options(**changes) -> SceneOptions:
    defaults = {
        "image_size": 96,
        "images": FEW,
        "digits_per_scene": (2, 4),
        "digit_size": (16, 32),
        "seed": 0,
    }
    return SceneOptions(**(defaults | changes))


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_visible_box_by_hand():
    alpha = np.zeros((6, 8))
    alpha[2, 3] = alpha[4, 5] = 0.31
    alpha[0, 0] = 0.29  # too faint to see
    assert visible_box(alpha, top=10, left=20) == (23, 12, 3, 3)


def test_visible_box_of_an_invisible_patch_is_refused():
    with pytest.raises(ValueError, match=r"more opaque than 0\.3"):
        visible_box(np.full((4, 4), 0.2), 0, 0)


def test_overlap_by_hand():
    assert overlap((0, 0, 10, 10), (8, 5, 4, 10)) == 10 / 40
    assert overlap((0, 0, 10, 10), (2, 2, 3, 3)) == 1
    assert overlap((0, 0, 10, 10), (10, 0, 5, 5)) == 0
    assert overlap((0, 0, 10, 10), (20, 20, 5, 5)) == 0


def test_coco_json_by_hand():
    coco = coco_json([(), (PlacedDigit(scan=5, label=7, box=(3, 4, 10, 20)),)], image_size=64)
    assert coco["images"][1] == {"id": 2, "file_name": "00001.png", "width": 64, "height": 64}
    assert coco["annotations"] == [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 8,
            "bbox": [3.0, 4.0, 10.0, 20.0],
            "area": 200.0,
            "iscrowd": 0,
        }
    ]
    assert coco["categories"][7] == {"id": 8, "name": "7"}


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_their_own_splits_scans_and_regions(split):
    allowed = {photo: box for photo, *box in photo_regions(split)}
    own_scans = set(scan_indices(split).tolist())
    for scene in scenes(split, options(images={split: 20})):
        top, left, height, width = allowed[scene.crop.photo]
        assert top <= scene.crop.top <= top + height - scene.crop.side
        assert left <= scene.crop.left <= left + width - scene.crop.side
        assert {digit.scan for digit in scene.digits} <= own_scans


def test_boxes_are_inside_the_scene_apart_and_tight_around_what_changed():
    for scene in scenes("train", options(images={"train": 20})):
        assert 2 <= len(scene.digits) <= 4
        difference = np.abs(scene.image.astype(int) - render_crop(scene.crop, 96)).max(axis=2)
        for number, digit in enumerate(scene.digits):
            x, y, width, height = digit.box
            assert 0 <= x < x + width <= 96
            assert 0 <= y < y + height <= 96
            assert all(overlap(digit.box, other.box) <= 0.15 for other in scene.digits[:number])
            box = difference[y : y + height, x : x + width]
            assert all(edge.max() > 0 for edge in (box[0], box[-1], box[:, 0], box[:, -1]))
        outside = np.ones((96, 96), dtype=bool)
        for x, y, width, height in (digit.box for digit in scene.digits):
            outside[max(0, y - 4) : y + height + 4, max(0, x - 4) : x + width + 4] = False
        # Only the faint rim of the ink, a few pixels wide, lies outside a box.
        assert difference[outside].max(initial=0) == 0


def test_json_is_read_by_pycocotools_and_describes_the_written_images(tmp_path):
    splits = write_scenes(tmp_path, image_size=96, images=FEW, digit_size=(16, 32))
    assert set(splits) == set(SPLITS)
    for split, count in FEW.items():
        coco = COCO(str(splits[split].annotations))
        assert len(coco.imgs) == count
        assert [category["name"] for category in coco.loadCats(range(1, 11))] == list("0123456789")
        for image in coco.imgs.values():
            with Image.open(splits[split].image_dir / image["file_name"]) as png:
                assert (png.size, png.mode) == ((image["width"], image["height"]), "RGB")
        assert 2 * count <= len(coco.anns) <= 6 * count
        assert all(isinstance(value, float) for ann in coco.anns.values() for value in ann["bbox"])


def test_written_pixels_and_boxes_are_those_of_the_generator(tmp_path):
    splits = write_scenes(tmp_path, image_size=96, images=FEW, digits_per_scene=(2, 4), digit_size=(16, 32))
    coco = json.loads(splits["val"].annotations.read_text())
    expected = list(scenes("val", options()))
    for index, scene in enumerate(expected):
        with Image.open(splits["val"].image_dir / coco["images"][index]["file_name"]) as png:
            assert np.array_equal(np.asarray(png), scene.image)
    boxes = [list(digit.box) for scene in expected for digit in scene.digits]
    assert [annotation["bbox"] for annotation in coco["annotations"]] == boxes


def test_equal_options_give_equal_bytes_and_another_seed_other_ones(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_scenes(tmp_path / name, image_size=64, images={"val": 2}, digit_size=(12, 20), seed=seed)
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    (first,), (other,) = (sorted((tmp_path / name).glob("*/val/00000.png")) for name in ("first", "other"))
    assert first.read_bytes() != other.read_bytes()
    assert first.parent.parent.name != other.parent.parent.name


def test_second_call_writes_nothing(tmp_path):
    def modification_times():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    first = write_scenes(tmp_path, image_size=64, images={"val": 2}, digit_size=(12, 20))
    for path in tmp_path.rglob("*"):
        os.utime(path, ns=(1, 1))
    before = modification_times()
    assert write_scenes(tmp_path, image_size=64, images={"val": 2}, digit_size=(12, 20)) == first
    assert modification_times() == before


def test_the_remains_of_a_killed_process_are_harmless(tmp_path):
    name = options(images={"val": 2}).fingerprint()
    remains = tmp_path / f".digits-{name}.1.0" / "val"
    remains.mkdir(parents=True)
    (remains / "00000.png").write_bytes(b"half")
    splits = write_scenes(tmp_path, image_size=96, images={"val": 2}, digits_per_scene=(2, 4), digit_size=(16, 32))
    assert splits["val"].annotations.parent == tmp_path / f"digits-{name}"
    with Image.open(splits["val"].image_dir / "00000.png") as png:
        assert png.size == (96, 96)


def test_the_remains_of_a_killed_process_are_removed_but_not_what_a_living_one_writes(tmp_path):
    arguments = {"image_size": 64, "images": {"val": 1}, "digit_size": (12, 20)}
    name = write_scenes(tmp_path, **arguments)["val"].annotations.parent.name
    dead, living, begun = (tmp_path / f".{name}.{pid}.0" for pid in (1, 2, 3))
    for folder in (dead, living, begun):
        (folder / "val").mkdir(parents=True)
        (folder / "val" / ".00000.png.0.partial").write_bytes(b"half")
    (dead / ".lock").touch()
    with FileLock(living / ".lock"):
        write_scenes(tmp_path, **arguments)
        assert {path.name for path in tmp_path.iterdir()} == {name, living.name, begun.name}
    write_scenes(tmp_path, **arguments)
    assert {path.name for path in tmp_path.iterdir()} == {name, begun.name}


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="no room for digit"):
        write_scenes(tmp_path, image_size=64, images={"val": 1}, digits_per_scene=(9, 9), digit_size=(40, 44))
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_the_first_to_finish_wins(tmp_path, monkeypatch):
    arguments = {"image_size": 64, "images": {"val": 1}, "digit_size": (12, 20)}
    original = scenes
    calls = []

    def interrupted_by_another_process(split, scene_options):
        if not calls:
            calls.append(split)
            write_scenes(tmp_path, **arguments)
            (winner,) = tmp_path.glob("digits-*/manifest.json")
            calls.append(winner.stat().st_mtime_ns)
        return original(split, scene_options)

    monkeypatch.setattr("detect.scenes.scenes", interrupted_by_another_process)
    write_scenes(tmp_path, **arguments)
    (directory,) = tmp_path.iterdir()
    assert (directory / "manifest.json").stat().st_mtime_ns == calls[1]


def test_an_incomplete_directory_is_refused(tmp_path):
    splits = write_scenes(tmp_path, image_size=64, images={"val": 1}, digit_size=(12, 20))
    (splits["val"].annotations.parent / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json, so it is incomplete"):
        write_scenes(tmp_path, image_size=64, images={"val": 1}, digit_size=(12, 20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"dev": 3}}, "unknown split 'dev'"),
        ({"images": {"val": 0}}, "val must have at least 1 scene, got 0"),
        ({"digits_per_scene": (0, 3)}, r"digits_per_scene must be .* got \(0, 3\)"),
        ({"digit_size": (40, 20)}, r"digit_size must be .* got \(40, 20\)"),
        ({"digit_size": (20, 90)}, "digit_size 90 does not fit in image_size 96"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_every_option_changes_the_fingerprint():
    variants = [
        {},
        {"image_size": 112},
        {"images": {"val": 9}},
        {"digits_per_scene": (2, 5)},
        {"digit_size": (16, 33)},
        {"seed": 1},
    ]
    assert len({options(**changes).fingerprint() for changes in variants}) == len(variants)
