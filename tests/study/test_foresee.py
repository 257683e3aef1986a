"""What would fail after the classifier's training is refused before it, by the dry run and by the real one."""

import io

import pytest
from rich.console import Console
from support.coco_layout import encoded, picture, write_coco
from support.tiny_study import DIGITS, tiny

from detect.heads import HEADS
from study.plan.dry_run import print_plan
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.named import PIPELINES
from study.plan.pipelines import all_stages
from study.run.study import run_study
from training.strict_yaml import ConfigError

WRONG = [
    (["detector.model.strides=[4, 8, 16, 32, 64, 128]", "detector.model.anchor_sizes=null"], "no feature map"),
    (["detector.model.strides=[4, 16]"], "must double from one to the next"),
    (["detector.model.freeze_at=9"], "freeze_at=9 is outside 0..4 for 3 strides"),
    (["detector.model={norm: GN, freeze_at: 1}"], "would freeze fresh GroupNorm weights"),
    (["detector.model.anchor_sizes=[8, 16]"], "anchor_sizes has 2 entries for 4 levels"),
    (["detector.model={head: c4, strides: [32], image_size: 64}"], "no feature map of stride"),
    (["detector.model.overrides={MODEL.RPN.CONV_DIMS: [0]}"], "this detector cannot be trained; on blank images"),
    (["detector.model.overrides={MODEL.RPN.IOU_THRESHOLDS: [0.9, 0.1]}"], "Detectron2 cannot build this detector"),
    (["detector.model.overrides={MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION: 0}"], "detector.model: "),
    (["detector.model.overrides={INPUT.MIN_SIZE_TRAIN_SAMPLING: range}"], "this detector cannot be trained"),
    (
        ["machine.precision=float16", "machine.device=cpu"],
        "machine.precision='float16' is for GPUs; on 'cpu' take auto",
    ),
    (["detector.train.group_by_aspect=true", "detector.train.batch_size=20"], "8 images do not fill one batch of 20"),
    (["detector.model.overrides={MODEL.ROI_HEADS.NUM_CLASSES: 3}"], r"number of classes \(10\)"),
    (["classifier.train.batch_size=49"], "classifier.train.batch_size=49 is larger than the training set of 48 images"),
    (["classifier.fine_tune.batch_size=49"], "classifier.fine_tune.batch_size=49 is larger than the training set of"),
    (["classifier.scratch.batch_size=49"], "classifier.scratch.batch_size=49 is larger than the training set of"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_a_wrong_detector_is_refused_before_anything_is_trained(overrides, message, tmp_path):
    """By both runs in the same sentence; no stage has a run directory then."""
    said = []
    for run in ("dry", "real"):
        with pytest.raises(ConfigError, match=message) as error:
            config, routes = tiny(*overrides)
            if run == "dry":
                print_plan(config, routes, tmp_path, Console(file=io.StringIO()), DIGITS)
            else:
                run_study(config, DIGITS, routes, tmp_path)
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0] and said[0].startswith(str(DIGITS))
    assert not list(tmp_path.glob("*-*/seed*"))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "mask"])  # which digits have not
def test_every_route_of_every_head_is_foreseen(head, tmp_path):
    left_out = [f"detector.model.{name}=null" for name in HEADS[head].idle]
    strides = {"retinanet": "[8, 16, 32]", "c4": "[4, 8]"}.get(head, "[4, 8, 16]")
    pipelines = f"pipelines=[{', '.join(PIPELINES)}]"
    levels = ["detector.model.anchor_sizes=null", f"detector.model.strides={strides}"]
    arch = ["classifier.arch=imagenet_resnet", "classifier.options={depth: 18, width: 0.125}"]
    scope = ["detector.prune_scope=backbone+fpn"] if HEADS[head].pyramid else []
    config, routes = tiny(f"detector.model.head={head}", *left_out, *levels, *arch, *scope, pipelines)
    found = foresee(all_stages(routes), Estimator(tmp_path, config.machine), DIGITS)
    assert found.detectors >= 1 and found.seconds > 0
    assert f"detectors tried on blank images: {found.detectors}" in str(found)


def test_masks_without_outlines_to_learn_from_are_refused(tmp_path):
    files = write_coco(tmp_path, {"a.png": encoded(picture(), "PNG")}).annotations
    side = f"{{annotations: {files}}}"
    data = f"detector.dataset={{coco: {{train: {side}, test: {side}}}, allow_shared: true}}"
    config, routes = tiny("detector.model.head=mask", data, "pipelines=[unpruned]")
    with pytest.raises(ConfigError, match="1 of 1 objects have no outline of which a mask could be learned"):
        run_study(config, DIGITS, routes, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*-*/seed*"))


def test_a_shape_of_a_classifier_is_not_for_pruning_inside_a_detector():
    target = ["classifier.arch=preresnet50", "classifier.options={}", "prune={target: sss-resnet26}"]
    with pytest.raises(ConfigError, match="is a shape of a classifier; prune it before the transfer"):
        tiny(*target, "pipelines=[transfer_then_prune]")
