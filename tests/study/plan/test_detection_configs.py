"""The detection studies' configs, planned on a data set of one image where theirs would be."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support import published
from support.voc_layout import voc_object, write_voc

from study.config.load import load_config, read_yaml
from study.config.schema import DetectConfig, StudyConfig
from study.config.sections import Machine
from study.plan.estimate import Estimator
from study.plan.pipelines import expand

CONFIGS = Path(__file__).parents[3] / "configs"
STUDIES = [path for path in sorted((CONFIGS / "pipelines").glob("*.yaml")) if "detector" in read_yaml(path)]
SIZE = (640, 480)


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """The working directory with an image or two of VOC, COCO and BCCD each, in the places that the configs name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    dog = {"000001": [voc_object("dog", (10, 10, 60, 50))]}
    for split, root in (("trainval", "datasets/VOC2007"), ("train", "data/bccd"), ("test", "data/bccd")):
        write_voc(tmp_path / root, dog, split)
    write_voc(tmp_path / "data/bccd", dict.fromkeys(("000002", "000003"), dog["000001"]), "trainval")
    write_voc(tmp_path / "datasets/VOC2007", dog, "test")
    for split in ("train2017", "val2017"):
        folder = tmp_path / "datasets" / "coco"
        (folder / split).mkdir(parents=True)
        Image.new("RGB", SIZE).save(folder / split / "a.jpg")
        (folder / "annotations").mkdir(exist_ok=True)
        box = {"id": 1, "image_id": 1, "category_id": 18, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
        image = {"id": 1, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}
        content = {"images": [image], "annotations": [box], "categories": [{"id": 18, "name": "dog"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def routes_of(path):
    return expand(load_config(StudyConfig, path, ["seeds=[0]"]), source=str(path))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_detection_study_has_the_routes_of_its_question(path, somewhere):
    expected = {"unpruned", "prune_then_transfer", "transfer_then_prune"}
    if path.stem.startswith("pretrained_"):  # without classification data
        expected = {"unpruned", "prune_then_detect", "detect_from_scratch"}
        expected |= set() if path.stem.endswith("_length") else {"transfer_then_prune"}
    elif path.stem.endswith("_methods"):  # what methods leave, trained further or anew
        expected |= {"prune_then_detect", "scratch_e", "prune_at_init"}
    elif "_prune_at" not in path.stem:  # which asks about one of them, and needs what it is held against
        expected |= {"scratch_e", "scratch_b", "detect_from_scratch"}
    assert {route.pipeline for route in routes_of(path)} == expected


@pytest.mark.parametrize("path", sorted((CONFIGS / "detect").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_detector_alone_loads(path, somewhere):
    assert load_config(DetectConfig, path).detector.train.iterations > 0


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_file_says_where_it_comes_from_and_how_it_is_run(path):
    heading = path.read_text(encoding="utf-8").partition("\n\n")[0]
    for word in ("# Source ", "# Data ", "# Cost ", "# Command ", f"prune-transfer run {path.stem}"):
        assert word in heading
    assert "@" not in heading
    assert read_yaml(path)["name"] == path.stem


def test_the_config_in_the_recipe_is_one(somewhere):
    page = (CONFIGS.parent / "docs" / "prune-your-detector.md").read_text(encoding="utf-8")
    (text,) = (block.partition("```")[0] for block in page.split("```yaml\n")[1:])
    (somewhere / "configs").symlink_to(CONFIGS)
    (somewhere / "data" / "bccd").rename(somewhere / "data" / "mine")
    (somewhere / "mine.yaml").write_text(text)
    assert {route.pipeline for route in routes_of(somewhere / "mine.yaml")} == {"unpruned", "prune_then_detect"}


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_detection_study_is_planned(path, somewhere):
    """The pruned backbone of each route is the published shape, or smaller than the unpruned one."""
    estimator = Estimator(somewhere / "runs", Machine(data_root=somewhere / "absent"))
    for route in routes_of(path):
        estimates = [estimator.estimate(stage) for stage in route.stages]
        for estimate, stage in zip(estimates, route.stages, strict=True):
            if stage.kind.startswith("train"):  # at prune_at 0 a detector is trained for no iteration
                assert (estimate.train_macs > 0) == (stage.settings["train"].get("iterations") != 0)
        if route.pipeline == "scratch_e" and route.point.get("variant") == "resnet34-A":
            assert estimates[0].params == published.TARGETS["resnet34-A"][0]
