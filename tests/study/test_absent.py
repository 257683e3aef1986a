"""What is not there is one sentence before any work: data sets, by the key that names them, and Slurm."""

import json
from pathlib import Path

import pytest
from support.tiny_classification import tiny
from support.tiny_study import DIGITS
from support.voc_layout import voc_object, write_voc

from classify.calibration import ImageSource
from study.plan.load import load_study
from study.run.study import run_study
from training.strict_yaml import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "cifar10"}, ["cifar-10-binary.tar.gz", "cifar-10-batches-bin/", "download: true"]),
        ({"name": "cifar100"}, ["cifar-100-binary.tar.gz", "cifar-100-binary/", "download: true"]),
        ({"name": "mnist"}, ["MNIST/raw/train-images-idx3-ubyte.gz", "download: true"]),
        ({"name": "imagenet"}, ["imagenet: no such folder or zip", "train/<wnid>/*.JPEG", "cannot be downloaded"]),
        ({"name": "folder", "options": {"path": "mine"}}, ["mine: no such folder or zip"]),
        ({"name": "folder"}, ["needs the option path", "class/image"]),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else "",
)
def test_an_absent_data_set_of_classification_is_one_sentence(tmp_path, data, words):
    config, routes = tiny({"classifier.dataset": data, "machine.data_root": str(tmp_path / "none")})
    with pytest.raises(ValueError) as error:
        run_study(config, Path("tiny.yaml"), routes, tmp_path / "runs")
    for word in ("classifier.dataset", repr(data["name"]), "machine.data_root", str(tmp_path / "none"), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def coco(root: Path, split: str) -> dict[str, str]:
    return {"annotations": str(root / f"{split}.json"), "images": str(root / split)}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda root: {"coco": {s: coco(root, s) for s in ("train", "test")}}, "coco.train.annotations: "),
        (lambda root: {"voc": {"root": str(root / "none")}}, "voc.root: .*none is not there; .* JPEGImages/"),
        (lambda root: {"voc": {"root": str(root / "voc"), "also": [{"root": "no"}]}}, "voc.also.0.root: no is not"),
    ],
)
def test_an_absent_data_set_of_detection_is_one_sentence(tmp_path, data, words):
    write_voc(tmp_path / "voc", {"a": [voc_object("cat", (1, 1, 9, 9))]}, "trainval")
    with pytest.raises(ConfigError, match=rf"override .*detector\.dataset\.{words}") as error:
        load_study(DIGITS, [f"detector.dataset={json.dumps(data(tmp_path))}"])
    assert "\n" not in str(error.value)


def test_absent_images_of_coco_are_named_by_their_key(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    data = {"coco": {split: coco(tmp_path, split) for split in ("train", "test")}}
    with pytest.raises(ConfigError, match=r"detector\.dataset\.coco\.train\.images: .*train is not there"):
        load_study(DIGITS, [f"detector.dataset={json.dumps(data)}"])


def test_an_absent_data_set_of_the_pruner_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"--data cifar10: data: neither .* download: true \(.*--data-options\)"):
        ImageSource("cifar10").open(image_size=32, seed=0)


@pytest.mark.parametrize(
    ("squeue", "words"), [(None, "there is no sbatch, squeue, scontrol here"), ("no", "squeue failed: no")]
)
def test_slurm_that_is_not_there_or_does_not_answer_is_one_sentence(tmp_path, monkeypatch, squeue, words):
    if squeue:
        for name in ("sbatch", "squeue", "scontrol"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho {squeue} >&2\nexit 1\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if squeue else str(tmp_path))
    config, routes = tiny({"machine.executor": "slurm"})
    with pytest.raises(ValueError, match=rf"machine\.executor: slurm: {words}; .*machine\.executor: local"):
        run_study(config, Path("tiny.yaml"), routes, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
