"""`prune-transfer check-data`: what it prints, and its three exit codes."""

import json
from pathlib import Path

import pytest
import yaml
from support.voc_layout import voc_object, write_annotation, write_voc

from study.commands.check_data import add_arguments, main
from study.run.launch import launch, make_parser

ROOT = Path(__file__).resolve().parents[3]


def call(*words):
    return launch(lambda: main(make_parser(None, add_arguments).parse_args([str(word) for word in words])))


@pytest.fixture
def voc(tmp_path):
    """Three different images with a box each, one in `train` and two in `test`."""
    root = write_voc(tmp_path / "voc", {name: [voc_object("cat", (1, 1, 9, 9))] for name in "abc"}, "test")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("b\nc\n")
    return root


def test_a_sound_data_set_ends_with_0(voc, capsys):
    assert call("--voc", voc, "train", "test") == 0
    printed = capsys.readouterr().out
    assert "cat 2" in printed and "no problems" in printed


def test_problems_end_with_1_and_are_shown_with_what_becomes_of_them(voc, capsys):
    write_annotation(voc, "b", [voc_object("cat", (5, 5, 5, 5)), voc_object("[red]dog", (1, 1, 9, 9))])
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nc\n")
    assert call("--voc", voc, "train", "test") == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("boxes empty" in line and "dropped" in line and "b.xml: cat 5 5 5 5" in line for line in lines)
    assert any("images that are in another split too" in line and "in train: " in line for line in lines)
    assert any("[red]dog 1" in line for line in lines)


def test_what_cannot_be_read_ends_with_2(voc, capsys):
    assert call("--voc", voc, "nope") == 2
    assert "nope.txt: cannot be read" in capsys.readouterr().err
    assert call("--voc", voc) == 2
    assert "name the image sets too" in capsys.readouterr().err
    (voc / "a.json").write_text("{")
    assert call("--coco", voc / "a.json", voc) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_coco_files_are_named_by_their_stems(voc, tmp_path, capsys):
    coco = {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 96, "height": 64}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 0, "name": "cat"}],
    }
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(coco))
    images = voc / "JPEGImages"
    assert call("--coco", tmp_path / "one.json", images) == 0
    assert call("--coco", tmp_path / "one.json", images, "--coco", tmp_path / "two.json", images) == 1
    assert "in one: " in capsys.readouterr().out


def test_a_config_names_its_data(voc, tmp_path, monkeypatch, capsys):
    config = tmp_path / "mine.yaml"
    dataset = {"voc": {"root": str(voc), "train": "train", "test": "test"}}
    config.write_text(yaml.safe_dump({"detector": {"dataset": dataset}}))
    assert call(config, "--runs", tmp_path) == 0
    # without a root: Pascal VOC itself, where Detectron2 looks for it
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    voc.rename(tmp_path / "VOC2007")
    dataset["voc"] = {"train": "train", "test": "test", "year": 2007}
    config.write_text(yaml.safe_dump({"detector": {"dataset": dataset}}))
    assert call(config, "--runs", tmp_path) == 0
    dataset["voc"]["year"] = 2010
    config.write_text(yaml.safe_dump({"detector": {"dataset": dataset}}))
    assert call(config) == 2
    assert "voc.year" in capsys.readouterr().err
    config.write_text("classifier: {}\n")
    assert call(config) == 2
    assert "no key detector.dataset" in capsys.readouterr().err
