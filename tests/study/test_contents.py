"""Results are named after what is in files: not after where these are, or when they were written."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_classification import run, tiny
from support.voc_layout import voc_object, write_voc

from classify.data import image_files
from detect.settings import DetectorData, DetectorSettings
from study.config.sections import ClassifierData, Machine
from study.run.stage import run_stage
from study.run.study import load_written_study, report_again, run_study
from study.stages.contents import Contents, check_unchanged
from study.stages.data import open_classification
from study.stages.stage import Stage, Task
from training import remembered
from training.files import read_json


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)  # all of one size


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight images each, in a folder of data sets."""
    for number in range(16):
        picture(tmp_path / "data" / "mine" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "data" / "mine"


def settings(root: Path, path: str, runs: Path | None = None):
    data = ClassifierData(name="folder", options={"path": path, "image_size": 32})
    return Contents(runs).classification(data, root)


def named(root: Path, path: str, runs: Path | None = None) -> str:
    return Stage("train_classifier", {"dataset": settings(root, path, runs)}, (), 0).hash


def replace_pixels(file: Path) -> None:
    """Other pixels in as many bytes, with the time of the old ones."""
    before = file.stat()
    picture(file, 99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def relabel(folder: Path) -> None:
    """Two images change places."""
    one, two = folder / "a" / "0.png", folder / "b" / "1.png"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def test_the_same_images_elsewhere_or_in_a_zip_are_the_same_data(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere" / "theirs")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    hashes = {named(folder.parent, "mine"), named(tmp_path, "elsewhere/theirs"), named(tmp_path, "packed.zip")}
    assert len(hashes) == 1
    opened = open_classification(settings(tmp_path, "packed.zip"), Machine(data_root=tmp_path))
    assert opened.train.classes == ("a", "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: replace_pixels(folder / "a" / "0.png"),
        relabel,
        lambda folder: (folder / "a" / "0.png").rename(folder / "b" / "0.png"),
        lambda folder: (folder / "a" / "0.png").unlink(),
    ],
    ids=["pixels", "labels", "moved", "removed"],
)
def test_other_images_are_other_data_though_they_were_hashed_before(folder, tmp_path, change, monkeypatch):
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    before = named(folder.parent, "mine", tmp_path / "runs")
    assert named(folder.parent, "mine", tmp_path / "runs") == before
    change(folder)
    assert named(folder.parent, "mine", tmp_path / "runs") != before


def test_bytes_are_read_once_and_then_only_those_of_files_that_changed(folder, tmp_path, monkeypatch):
    read: list[Path] = []
    real = image_files.sha256
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(image_files, "sha256", lambda file: read.append(file) or real(file))
    first = named(folder.parent, "mine", tmp_path)
    assert len(read) == 16
    assert named(folder.parent, "mine", tmp_path) == first
    assert len(read) == 16
    replace_pixels(folder / "a" / "2.png")
    second = named(folder.parent, "mine", tmp_path)
    assert read[16:] == [folder / "a" / "2.png"]
    assert second == named(folder.parent, "mine") != first  # as without a memory


def test_what_was_written_a_moment_ago_is_not_remembered(folder, tmp_path):
    """It could be written again within one tick of the clock, and look the same."""
    named(folder.parent, "mine", tmp_path)
    assert not list((tmp_path / remembered.FOLDER).glob("*.npz"))


@pytest.mark.parametrize("text", ["", "nonsense", "[1]\n", '{"state": 3}\n["a"]\n', "\x00\xff"])
def test_a_damaged_memory_is_none(folder, tmp_path, text, monkeypatch):
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    first = named(folder.parent, "mine", tmp_path)
    (memory,) = (tmp_path / remembered.FOLDER).glob("*.npz")
    memory.write_text(text, encoding="latin-1")
    assert named(folder.parent, "mine", tmp_path) == first


def test_of_several_that_start_at_once_one_reads(folder, tmp_path, monkeypatch):
    read: list[Path] = []
    real, found = image_files.sha256, []
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(image_files, "sha256", lambda file: read.append(file) or real(file))
    threads = [threading.Thread(target=lambda: found.append(named(folder.parent, "mine", tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 4
    assert len(read) == 16


ON_A_FOLDER = {
    "classifier.dataset": {"name": "folder", "options": {"path": "mine", "image_size": 32, "val": 2, "test": 4}},
    "classifier.train": {"epochs": 1, "batch_size": 4, "lr": 0.05},
    "machine.precision": "float32",
    "pipelines": ["unpruned"],
}


def test_a_study_on_replaced_images_is_another_and_its_report_outlives_its_data(folder, tmp_path):
    changes = {**ON_A_FOLDER, "machine.data_root": str(folder.parent)}
    (first,) = run(tmp_path / "runs", changes).values()
    (again,) = run(tmp_path / "runs", changes).values()
    assert again.evaluation.id == first.evaluation.id
    replace_pixels(folder / "a" / "0.png")
    (other,) = run(tmp_path / "runs", changes).values()
    assert other.evaluation.id != first.evaluation.id
    assert other.evaluation.run(tmp_path / "runs").done
    shutil.rmtree(folder)
    (written,) = load_written_study(tmp_path / "runs" / "tiny")[2].recipe
    assert written.evaluation.id == other.evaluation.id
    assert report_again(tmp_path / "runs" / "tiny").is_file()
    assert len(read_json(tmp_path / "runs" / "tiny" / "comparison.json")["rows"]) == 1


@pytest.mark.parametrize("settled", [0, 10**18], ids=["remembered", "not remembered"])
def test_a_stage_whose_data_changed_after_it_was_named_does_not_run(folder, tmp_path, settled, monkeypatch):
    """As a training that resumes would: its checkpoint is of other images."""
    monkeypatch.setattr(remembered, "_SETTLED_NS", settled)
    _, routes = tiny({**ON_A_FOLDER, "machine.data_root": str(folder.parent)})
    stage = routes[0].evaluation
    machine = Machine(threads=1, precision="float32", data_root=folder.parent)
    check_unchanged(stage, tmp_path / "runs", machine)
    relabel(folder)
    with pytest.raises(ValueError, match=r"data set folder in .*mine: the content has changed .* nothing is mixed"):
        run_stage(Task(stage, "classify", tmp_path / "runs", machine))
    assert not stage.run(tmp_path / "runs").done


def test_a_study_without_its_data_is_planned_and_not_run(tmp_path):
    changes = {**ON_A_FOLDER, "classifier.dataset": {"name": "cifar10"}, "machine.data_root": str(tmp_path / "none")}
    config, routes = tiny(changes)
    data = routes[0].evaluation.settings["dataset"]
    assert data["content"] is None
    with pytest.raises(ValueError) as error:
        run_study(config, Path("tiny.yaml"), routes, tmp_path / "runs")
    for part in ("classifier.dataset", "cifar10", "cifar-10-binary.tar.gz", "download: true", "machine.data_root"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def detection(data: dict, runs: Path | None = None) -> str:
    found = Contents(runs).detection(DetectorData.model_validate(data))
    return Stage("evaluate", {"data": found}, (), 0).hash


def test_replaced_images_of_a_detection_data_set_are_other_data(tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    for place in ("one", "two"):
        root = write_voc(tmp_path / place, {"a": [voc_object("cat", (1, 1, 9, 9))]}, "train")
        write_voc(root, {"b": [voc_object("cat", (1, 1, 9, 9))]}, "test")
    one, two = ({"voc": {"root": tmp_path / place, "train": "train", "test": "test"}} for place in ("one", "two"))
    before = detection(one, tmp_path)
    assert detection(two, tmp_path) == detection(one, tmp_path) == before
    stage = Stage("evaluate", {"data": Contents(tmp_path).detection(DetectorData.model_validate(one))}, (), 0)
    Image.new("RGB", (96, 64)).save(tmp_path / "one" / "JPEGImages" / "b.jpg")
    assert detection(one, tmp_path) != before
    with pytest.raises(ValueError, match=r"the test images of detector\.dataset: the content has changed"):
        check_unchanged(stage, tmp_path, Machine())


def test_replaced_images_of_coco_are_other_data(tmp_path):
    image = {"id": 1, "file_name": "a.png", "width": 32, "height": 32}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    parts = {}
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        picture(tmp_path / split / "a.png", len(split))
        parts[split] = {"annotations": tmp_path / f"{split}.json", "images": tmp_path / split}
    before = detection({"coco": parts})
    shutil.copytree(tmp_path / "train", tmp_path / "moved")
    assert detection({"coco": {**parts, "train": {**parts["train"], "images": tmp_path / "moved"}}}) == before
    replace_pixels(tmp_path / "train" / "a.png")
    assert detection({"coco": parts}) != before


def test_a_detectron2_file_counts_by_its_content_and_that_of_its_bases(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "base.yaml").write_text("MODEL: {RPN: {NMS_THRESH: 0.7}}\n")
        (tmp_path / place / "mine.yaml").write_text("_BASE_: base.yaml\n")

    def sum_of(place):
        settings = DetectorSettings(config_file=tmp_path / place / "mine.yaml").as_json()
        return Stage("train_detector", {"model": settings}, (), 0).hash

    before = sum_of("one")
    assert sum_of("two") == before
    (tmp_path / "one" / "base.yaml").write_text("MODEL: {RPN: {NMS_THRESH: 0.6}}\n")
    assert sum_of("one") != before
    (tmp_path / "one" / "base.yaml").unlink()
    with pytest.raises(ValueError, match=r"base\.yaml: no such Detectron2 config file"):
        sum_of("one")
    (tmp_path / "one" / "base.yaml").write_text("_BASE_: mine.yaml\n")
    with pytest.raises(ValueError, match="leads back to itself"):
        sum_of("one")


def test_patterns_count_by_what_is_in_them(tmp_path):
    def hash_of(file):
        prune = {"method": "guided", "options": {"patterns": [str(file)]}}
        _, (route,) = tiny({"prune": prune, "pipelines": ["scratch_e"]})
        return route.evaluation.hash

    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text("{}")
    before = hash_of(tmp_path / "one.json")
    assert hash_of(tmp_path / "two.json") == before
    (tmp_path / "two.json").write_text('{"a": 1}')
    assert hash_of(tmp_path / "two.json") != before
