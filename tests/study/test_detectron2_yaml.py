"""A Detectron2 YAML in a config: it wins where a key of ours was left out, and its content defines the stage."""

import pytest
from support.tiny_study import tiny

from detect.settings import DetectorSettings
from study.config.detector import DetectorModel
from training.strict_yaml import ConfigError


def model(*overrides, pipeline="unpruned"):
    """The detector stage of a pipeline."""
    route = next(route for route in tiny(*overrides)[1] if route.pipeline == pipeline)
    return next(stage for stage in route.stages if stage.kind == "train_detector")


def test_a_file_s_keys_are_kept_with_its_base_s(tmp_path):
    (tmp_path / "base.yaml").write_text("INPUT: {MAX_SIZE_TEST: 1000, MIN_SIZE_TEST: 600}\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: base.yaml\nINPUT: {MIN_SIZE_TEST: 640}\n")
    settings = DetectorSettings(config_file=tmp_path / "mine.yaml").as_json()
    assert settings["config_file"]["keys"] == {"INPUT.MAX_SIZE_TEST": 1000, "INPUT.MIN_SIZE_TEST": 640}
    assert settings["image_size"] is None and settings["max_image_size"] is None


def test_left_out_and_set_are_told_apart():
    keys = {"INPUT.MIN_SIZE_TEST": 96, "MODEL.BACKBONE.FREEZE_AT": 2, "MODEL.RESNETS.NORM": "BN"}
    settings = DetectorSettings(overrides=keys).as_json()
    assert settings["image_size"] is None and settings["max_image_size"] == 1333
    assert (settings["norm"], settings["freeze_at"], settings["strides"]) == ("BN", 2, [4, 8, 16, 32])
    with pytest.raises(ValueError, match=r"detector.model.image_size \(800\) and overrides: INPUT.MIN_SIZE_TEST=96"):
        DetectorModel(overrides=keys, image_size=800)


def test_heads_are_found_by_detectron2s_names():
    assert DetectorSettings(overrides={"MODEL.META_ARCHITECTURE": "RetinaNet"}).as_json()["head"] == "retinanet"
    assert DetectorSettings(overrides={"MODEL.META_ARCHITECTURE": "RetinaNet"}).as_json()["strides"] == [8, 16, 32]
    assert DetectorSettings(overrides={"MODEL.ROI_HEADS.NAME": "CascadeROIHeads"}).as_json()["head"] == "cascade"
    assert DetectorSettings(overrides={"MODEL.MASK_ON": True}).as_json()["head"] == "mask"
    assert "head" not in DetectorSettings(overrides={"MODEL.RPN.NMS_THRESH": 0.5}).as_json()
    assert DetectorSettings(head="retinanet").as_json()["strides"] == [8, 16, 32]


def test_the_content_and_not_the_name_of_the_file_is_in_the_hash(tmp_path):
    def digest(name, text):
        (tmp_path / name).write_text(text)
        return model(f"detector.model.config_file={tmp_path / name}").hash

    first = digest("a.yaml", "MODEL: {RPN: {NMS_THRESH: 0.6}}\n")
    assert digest("b.yaml", "MODEL: {RPN: {NMS_THRESH: 0.6}}\n") == first
    assert digest("a.yaml", "MODEL: {RPN: {NMS_THRESH: 0.5}}\n") != first
    (tmp_path / "base.yaml").write_text("MODEL: {RPN: {NMS_THRESH: 0.6}}\n")
    assert digest("c.yaml", "_BASE_: base.yaml\n") == first


@pytest.mark.parametrize("more", [[], ["grid={prune.ratio: [0.3, 0.5]}"], ["variants={a: {prune: {ratio: 0.3}}}"]])
def test_a_point_of_a_grid_does_not_take_defaults_for_what_the_user_set(more):
    keys = "detector.model.overrides={MODEL.BACKBONE.FREEZE_AT: 1, INPUT.MIN_SIZE_TEST: 64}"
    settings = model(keys, *more, pipeline="prune_then_transfer").settings["model"]
    assert settings["freeze_at"] == 1 and settings["image_size"] == 64  # the demo's own key agrees


def test_a_detector_from_scratch_is_not_frozen_by_the_file():
    keys = "detector.model.overrides={MODEL.BACKBONE.FREEZE_AT: 1, MODEL.RPN.NMS_THRESH: 0.6}"
    settings = model(keys, pipeline="detect_from_scratch").settings["model"]
    assert settings["freeze_at"] == 0 and settings["overrides"] == {"MODEL.RPN.NMS_THRESH": 0.6}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["detector.train.flip=false", "detector.model.overrides={INPUT.RANDOM_FLIP: horizontal}"],
            "train.flip: False and INPUT.RANDOM_FLIP='horizontal' differ",
        ),
        (
            [
                "detector.train.group_by_aspect=true",
                "detector.model.overrides={DATALOADER.ASPECT_RATIO_GROUPING: false}",
            ],
            "train.group_by_aspect: True and DATALOADER.ASPECT_RATIO_GROUPING=False differ",
        ),
        (["detector.model.config_file=/nowhere/mine.py"], "a LazyConfig of Detectron2 is a program"),
        (["detector.model.config_file=/nowhere/mine.yaml"], "/nowhere/mine.yaml: no such Detectron2 config file"),
        (["detector.model.config_file={MODEL.RPN.NMS_THRESH: 0.5}"], "give the path of a Detectron2 YAML"),
        (["detector.model.overrides={SOLVER.MAX_ITER: 5}"], "SOLVER.MAX_ITER=5 has no effect: set detector.train.iter"),
        (
            ["detector.model.overrides={MODEL: {MASK_ON: true}}"],
            "model.head: mask learns masks from outlines",
        ),
        (["detector.model.head=mask"], "outlines of objects: they are read of `coco`, not of `digits`"),
    ],
)
def test_what_differs_or_has_no_effect_is_refused_when_the_config_is_read(overrides, message):
    with pytest.raises(ConfigError) as error:
        tiny(*overrides)
    assert message in str(error.value) and "\n" not in str(error.value)
