"""Pictures are decoded once; what is refused afterwards is what would be refused without a memory."""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from support.coco_layout import coco_box, encoded, picture, write_coco
from support.voc_layout import voc_object, write_voc

from detect.data import check_dataset, decoded
from detect.data.check import check_apart, check_split
from detect.data.open import detection_data, image_memory, open_detection
from detect.data.problems import by_kind
from detect.data.whole import WholeImages
from detect.settings import DetectorData
from study.check_data import check_splits, config_splits
from study.commands.check_data import add_arguments, main
from study.plan.checks import _check_splits
from training import remembered


@pytest.fixture
def decodings(monkeypatch):
    """The names of the files that are decoded; what was written a moment ago counts as settled."""
    names, real = [], decoded.decode
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(decoded, "decode", lambda file: names.append(file.name) or real(file))
    return names


def three(folder):
    """A data set of three pictures with a box each."""
    return write_coco(folder, {f"{k}.jpg": encoded(picture(k), "JPEG") for k in range(3)})


def test_pictures_are_decoded_once(tmp_path, decodings):
    first = check_dataset(three(tmp_path / "all"), tmp_path)
    assert sorted(decodings) == ["0.jpg", "1.jpg", "2.jpg"]
    dataset = three(tmp_path / "same")
    again = [check_dataset(dataset, tmp_path) for _ in range(2)]
    assert len(decodings) == 6
    assert again[0] == again[1] and again[0].contents.keys() == first.contents.keys()
    check_dataset(dataset)
    assert len(decodings) == 9  # without a memory they are read anew


def as_long(content):
    """No picture, with as many bytes."""
    return content[:8].ljust(len(content), b"x")


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda file: file.write_bytes(b"no image"),
        lambda file: file.write_bytes(as_long(file.read_bytes())),
        lambda file: file.write_bytes(encoded(picture(1, size=(20, 40)), "JPEG")),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.unlink(), file.symlink_to("nowhere.jpg")),
    ],
    ids=["gone", "no image", "damaged", "another size", "a folder", "a broken link"],
)
def test_a_changed_picture_is_refused_in_the_same_words_as_without_a_memory(tmp_path, decodings, change):
    dataset = three(tmp_path / "all")
    check_dataset(dataset, tmp_path)
    change(dataset.images / "1.jpg")
    sentences = []
    for memory in (None, tmp_path, tmp_path):
        with pytest.raises(ValueError, match=r"1 of 3 images .*1\.jpg") as refused:
            check_dataset(dataset, memory)
        sentences.append(str(refused.value))
    assert len(set(sentences)) == 1


def test_other_annotations_are_compared_with_remembered_pictures(tmp_path, decodings):
    dataset = three(tmp_path / "all")
    check_dataset(dataset, tmp_path)
    images = [{"id": k + 1, "file_name": f"{k}.jpg", "width": 40 + k, "height": 20} for k in range(3)]
    content = json.loads(dataset.annotations.read_text()) | {"images": images}
    dataset.annotations.write_text(json.dumps(content))
    changed = type(dataset)(dataset.annotations, dataset.images)
    with pytest.raises(ValueError, match="2 of 3 images of another size than annotated") as refused:
        check_dataset(changed, tmp_path)
    assert len(decodings) == 3
    with pytest.raises(ValueError) as anew:
        check_dataset(changed)
    assert str(refused.value) == str(anew.value)


def test_what_is_counted_and_what_is_shared_is_found_among_remembered_pictures(tmp_path, decodings):
    same = encoded(picture(5), "PNG")
    train = write_coco(tmp_path / "train", {"a.png": same, "b.png": same})
    test = write_coco(tmp_path / "test", {"c.png": same})
    found = []
    for _ in range(2):
        checked = [check_split(dataset.split, tmp_path) for dataset in (train, test)]
        assert list(by_kind(checked[0].problems)) == ["images with the same content as another"]
        with pytest.raises(ValueError, match=r"1 of 1 images are in .*train") as refused:
            check_apart(*checked)
        found.append((checked, str(refused.value)))
    assert found[0] == found[1] and len(decodings) == 3


def test_broken_pictures_that_are_left_out_are_decoded_each_time_and_the_others_once(tmp_path, decodings):
    boxes = [coco_box(k, k, [4, 4, 8, 8]) for k in (1, 2, 3)]
    files = {f"{k}.png": encoded(picture(k), "PNG") for k in range(3)}
    dataset = write_coco(tmp_path / "all", files | {"1.png": b"none"}, boxes)
    splits = [WholeImages(dataset, tmp_path).split for _ in range(3)]
    assert sorted(decodings) == ["0.png", "1.png", "1.png", "1.png", "2.png"]
    assert splits[0] == splits[1] == splits[2] and [image.id for image in splits[0].images] == [1, 3]
    check_split(splits[0], tmp_path)
    assert len(decodings) == 5


def voc(root):
    """A data set with two pictures of training and one of testing; its section."""
    for name, images in (("train", "ab"), ("test", "c")):
        write_voc(root, {image: [voc_object("cat", (1, 1, 9, 9))] for image in images}, name)
    for seed, name in enumerate("abc"):
        picture(seed, size=(96, 64)).save(root / "JPEGImages" / f"{name}.jpg")
    return {"voc": {"root": str(root), "train": "train", "test": "test"}}


def test_a_second_start_of_a_study_decodes_nothing_and_a_change_in_between_is_said(tmp_path, decodings):
    data = detection_data(DetectorData.model_validate(voc(tmp_path / "mine")))
    for _ in range(2):
        _check_splits(data, {"train", "test"}, tmp_path / "runs")
        assert len(decodings) == 3
    file = tmp_path / "mine" / "JPEGImages" / "b.jpg"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"train\.txt: 1 of 2 images not readable, such as .*b\.jpg"):
        _check_splits(data, {"train", "test"}, tmp_path / "runs")
    assert decodings[3:] == ["b.jpg"]


@pytest.mark.parametrize("skip", [False, True])
def test_check_data_reads_anew_what_sizes_and_times_do_not_tell(tmp_path, decodings, monkeypatch, capsys, skip):
    """Other bytes, as many, within one tick of the clock."""
    section = voc(tmp_path / "mine") | ({"skip_broken": True} if skip else {})
    data, root = detection_data(DetectorData.model_validate(section)), tmp_path / "runs" / "data"
    monkeypatch.setattr(remembered, "stamp_of", lambda found: (found.st_size, 1, 1))
    train = open_detection(data, "train", root)
    check_dataset(train, image_memory(root))
    file = tmp_path / "mine" / "JPEGImages" / "b.jpg"
    file.write_bytes(as_long(file.read_bytes()))
    check_dataset(train, image_memory(root))
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"detector": {"dataset": section}}))
    (found, _) = check_splits(config_splits(config, tmp_path / "runs")).values()
    assert found.sound == skip and len(found.split.images) == (1 if skip else 2)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args([str(config), "--runs", str(tmp_path / "runs")])
    assert main(arguments) == (0 if skip else 1)
    assert ("left out" if skip else "images not readable") in capsys.readouterr().out
