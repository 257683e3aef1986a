"""Detectron2's keys: each is read, is a key of ours, or is refused; none is taken and does nothing."""

from functools import reduce
from operator import getitem

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from support.tiny_detector import two_squares
from torchvision.models.resnet import BasicBlock, ResNet

from detect.build import build_detector
from detect.data.loader import test_loader as loader_of_evaluation
from detect.data.loader import train_loader
from detect.detector_config import make_config
from detect.detectron2_keys import AS_IT_IS, BECAUSE, CHOICES, HEAD_BY, OURS, READ, UNREAD
from detect.evaluate import evaluate_detector
from detect.heads import HEADS
from detect.settings import DetectorSettings, TrainSettings
from training.options import validated

NEWER = {"FLOAT32_PRECISION": "high"}  # keys of a Detectron2 newer than the wheel that tools/install.py takes


def leaves(node=None, prefix=""):
    for name, value in (get_cfg() if node is None else node).items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]


def config(overrides=None, **settings):
    given = validated(DetectorSettings, {"overrides": overrides or {}, **settings}, "model")
    return make_config(given, num_classes=2)


def tiny():
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)


def test_every_key_of_detectron2_is_in_exactly_one_class():
    known = [*READ, *OURS, *UNREAD]
    assert len(known) == len(set(known))
    assert set(known) - NEWER.keys() == set(leaves()) - NEWER.keys() and NEWER.keys() <= set(known)


def test_the_table_speaks_of_keys_heads_and_settings_that_there_are():
    assert {head for heads in [*READ.values(), *(heads for _, heads in OURS.values())] for head in heads} == set(HEADS)
    assert CHOICES.keys() <= READ.keys() | OURS.keys() and BECAUSE.keys() <= CHOICES.keys()
    assert AS_IT_IS.keys() <= UNREAD.keys() and HEAD_BY.keys() <= OURS.keys()
    settings = {f"model.{name}" for name in DetectorSettings.model_fields}
    settings |= {f"train.{name}" for name in TrainSettings.model_fields} | {"dataset: number of classes"}
    assert {name for name, _ in OURS.values()} <= settings


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_what_is_said_to_be_read_is_asked_for(head, monkeypatch, tmp_path):
    """Building, loading, evaluating: every key of the table is looked up by name at least once."""
    asked = set()
    plain = CfgNode.__getattr__
    monkeypatch.setattr(CfgNode, "__getattr__", lambda node, name: (asked.add((id(node), name)), plain(node, name))[1])
    strides = {"strides": (8, 16)} if head == "c4" else {}
    augmented = {} if head == "retinanet" else {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (64,)}
    crop = {"INPUT.CROP.ENABLED": True, "INPUT.RANDOM_FLIP": "vertical"}
    settings = DetectorSettings(head=head, image_size=64, max_image_size=64, overrides={**augmented, **crop}, **strides)
    detector, cfg = build_detector(tiny(), settings, num_classes=2)
    monkeypatch.undo()
    asked_by_building = asked
    asked = set()
    monkeypatch.setattr(CfgNode, "__getattr__", lambda node, name: (asked.add((id(node), name)), plain(node, name))[1])
    dataset = two_squares(tmp_path)
    next(iter(train_loader(dataset, cfg, batch_size=2, seed=0)))
    next(iter(loader_of_evaluation(dataset, cfg)))
    evaluate_detector(detector, cfg, dataset=dataset)
    monkeypatch.undo()
    names = {}

    def name(node, prefix=""):
        for key, value in node.items():
            names[id(node), key] = f"{prefix}{key}"
            if isinstance(value, CfgNode):
                name(value, f"{prefix}{key}.")

    name(cfg)
    found = {names[at] for at in asked_by_building | asked if at in names}
    elsewhere = {
        "VERSION",
        "SOLVER.REFERENCE_WORLD_SIZE",  # detect/processes.py
        "MODEL.META_ARCHITECTURE",  # these say head, strides, norm and freeze_at, see test_a_yaml_*
        "MODEL.ROI_HEADS.NAME",
        "MODEL.FPN.IN_FEATURES",
        "MODEL.RESNETS.OUT_FEATURES",
        "MODEL.RESNETS.NORM",
        "MODEL.BACKBONE.FREEZE_AT",
        "MODEL.MASK_ON",
        "MODEL.KEYPOINT_ON",  # choices of one value
        "MODEL.LOAD_PROPOSALS",
        "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
        "VIS_PERIOD",
    }
    said = {key for key, heads in READ.items() if head in heads} | {
        k for k, (_, heads) in OURS.items() if head in heads
    }
    assert said - found - elsewhere == set()


@pytest.mark.parametrize("key", [key for key in UNREAD if key not in AS_IT_IS])
def test_a_key_that_nothing_reads_is_refused_and_says_what_to_do(key):
    value = NEWER.get(key) or reduce(getitem, key.split("."), get_cfg())
    with pytest.raises(ValueError) as error:
        config({key: value})
    assert f"overrides: {key}=" in str(error.value) and f"has no effect: {UNREAD[key]}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"SOLVER.BASE_LR": 0.1}, "SOLVER.BASE_LR=0.1 has no effect: set detector.train.lr"),
        (
            {"SOLVER.MAX_ITER": 9, "SEED": 3},
            "detector.train.iterations; overrides: SEED=3 has no effect: set seeds",
        ),
        ({"SOLVER.AMP.ENABLED": True}, "set machine.precision"),
        ({"MODEL.WEIGHTS": "x.pkl"}, "set classifier.weights"),
        ({"DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler"}, "set detector.train.repeat_threshold"),
        ({"MODEL.RETINANET.NUM_CONVS": 2}, "has no effect with head='fpn', only with retinanet"),
        ({"MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5]}, "has no effect with head='fpn', only with cascade"),
        ({"MODEL.MASK_ON": False, "MODEL.ROI_MASK_HEAD.NUM_CONV": 2}, "has no effect with head='fpn', only with mask"),
        (
            {"MODEL.MASK_ON": True, "MODEL.ROI_HEADS.NAME": "CascadeROIHeads"},
            "no head has MODEL.MASK_ON=True and MODEL.ROI_HEADS.NAME='CascadeROIHeads': choose detector.model.head",
        ),
        ({"MODEL.MASK_ON": True, "MODEL.META_ARCHITECTURE": "RetinaNet"}, "no head has MODEL.MASK_ON=True and MODEL.M"),
        ({"MODEL.KEYPOINT_ON": True}, "detectors predict boxes and masks, no keypoints"),
        ({"MODEL.META_ARCHITECTURE": "PanopticFPN"}, "choose from 'GeneralizedRCNN', 'RetinaNet'"),
        ({"MODEL.META_ARCHITECTURE": "FCOS"}, "choose from 'GeneralizedRCNN', 'RetinaNet'"),
        ({"MODEL.ROI_HEADS.NAME": "RROIHeads"}, "choose from 'StandardROIHeads', 'CascadeROIHeads', 'Res5ROIHeads'"),
        ({"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN"}, "rotated boxes and proposals from files are not supported"),
        ({"MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator"}, "boxes are not rotated"),
        ({"MODEL.BACKBONE.NAME": "build_swin_backbone"}, "the backbone is the classifier: set classifier.arch"),
        ({"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [True] * 4}, "the backbone is the classifier"),
        ({"INPUT.FORMAT": "BGR"}, "the classifier was trained on RGB; choose from 'RGB'"),
        ({"MODEL.RPN.IN_FEATURES": ["p2", "p9"]}, r"the levels of head='fpn' with strides \(4, 8, 16, 32\) are"),
        ({"MODEL.FPN.NORM": "BM"}, "choose from '', 'BN'"),
        ({"VERSION": 1}, "choose from 2"),
        ({"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False}, "one box for"),
        (
            {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6]},
            "2 IOUS and 3 BBOX_REG_WEIGHTS",
        ),
        ({"MODEL.META_ARCHITECTURE": "RetinaNet", "MODEL.RPN.NMS_THRESH": 0.5}, "no effect with head='retinanet'"),
        ({"TEST.AUG.ENABLED": True, "MODEL.META_ARCHITECTURE": "RetinaNet"}, "no effect with head='retinanet'"),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 80}, r"number of classes \(2\) and overrides: MODEL.ROI_HEADS.NUM_CLASSES=80"),
        ({"INPUT.MIN_SIZE_TRAIN": "large"}, "INPUT.MIN_SIZE_TRAIN='large' does not fit"),
        ({"MODEL.FPN.IN_FEATURES": ["stem"]}, "features are res1"),
        ({"MODEL.FPN.IN_FEATURES": ["res3", "res5"]}, r"strides=\(8, 32\) must double"),
        (
            {"MODEL.FPN.IN_FEATURES": ["res4", "res5"], "MODEL.BACKBONE.FREEZE_AT": 2},
            r"FREEZE_AT=2 ends before the first of strides \(16, 32\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(overrides, message):
    with pytest.raises(ValueError, match=message):
        config(overrides)


def test_values_that_are_so_anyway_are_taken():
    assert config({"MODEL.MASK_ON": True}) == config(head="mask")
    given = dict(AS_IT_IS) | {"MODEL.MASK_ON": False, "MODEL.META_ARCHITECTURE": "GeneralizedRCNN", "VERSION": 2}
    assert config(given) == config({})


YAML = """
MODEL:
  BACKBONE: {FREEZE_AT: 2}
  RESNETS: {NORM: BN, OUT_FEATURES: [res3, res4]}
  FPN: {IN_FEATURES: [res3, res4]}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64]], ASPECT_RATIOS: [[1.0]]}
INPUT:
  MIN_SIZE_TRAIN: (320, 352)
  MIN_SIZE_TEST: 336
  RANDOM_FLIP: horizontal
"""


def test_a_yaml_wins_over_our_defaults(tmp_path):
    (tmp_path / "base.yaml").write_text(YAML)
    (tmp_path / "mine.yaml").write_text("_BASE_: base.yaml\nINPUT: {MIN_SIZE_TEST: 344}\n")
    settings = DetectorSettings(config_file=tmp_path / "mine.yaml")
    detector, cfg = build_detector(tiny(), settings, num_classes=2)
    assert {name: s.stride for name, s in detector.backbone.output_shape().items()} == {"p3": 8, "p4": 16, "p5": 32}
    body = detector.backbone.bottom_up.body
    frozen = {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}  # Detectron2's 2: the stem and the stage of stride 4
    assert isinstance(body.get_submodule("layer3.0.bn1"), torch.nn.BatchNorm2d)
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[16], [32], [64]]
    assert detector.proposal_generator.rpn_head.anchor_deltas.out_channels == 4
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == ((320, 352), 344)


def test_what_neither_says_is_our_default():
    cfg = config()
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_FLIP) == (0, "RGB", "none")
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32.0], [64.0], [128.0], [256.0], [512.0]]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            {"image_size": 600},
            {"INPUT.MIN_SIZE_TEST": 800},
            r"detector.model.image_size \(600\) and overrides: INPUT",
        ),
        (
            {"freeze_at": 0},
            {"MODEL.BACKBONE.FREEZE_AT": 2},
            r"model.freeze_at \(0\) and .* leave one of the two",
        ),
        ({"norm": "GN"}, {"MODEL.RESNETS.NORM": "BN"}, r"detector.model.norm \('GN'\)"),
        (
            {"anchor_ratios": (1.0,)},
            {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0]]},
            "detector.model.anchor",
        ),
        ({"roi_batch_size": 64}, {"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 128}, "detector.model.roi_batch_size"),
        ({"strides": (4, 8)}, {"MODEL.FPN.IN_FEATURES": ["res3"]}, r"strides=\(4, 8\) and Detectron2's features"),
        ({"head": "c4"}, {"MODEL.META_ARCHITECTURE": "RetinaNet"}, "head='c4' and Detectron2's keys, which ask for"),
        ({"head": "retinanet"}, {"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"}, "which ask for 'fpn' or 'cascade' or"),
        ({"head": "cascade"}, {"MODEL.MASK_ON": True}, "which ask for 'mask', differ: MODEL.MASK_ON=True"),
        ({"head": "mask"}, {"MODEL.MASK_ON": False}, "which ask for 'fpn' or 'cascade' or 'c4' or 'retinanet', differ"),
        ({"head": "fpn"}, {"MODEL.ROI_HEADS.NAME": "Res5ROIHeads"}, "which ask for 'c4', differ"),
        ({"head": "fpn"}, {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads"}, "which ask for 'cascade'"),
    ],
)
def test_our_key_and_detectron2s_that_differ_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        config(theirs, **ours)


def test_our_key_and_detectron2s_that_agree_are_taken():
    cfg = config(
        {"INPUT.MIN_SIZE_TEST": 600, "MODEL.BACKBONE.FREEZE_AT": 1, "MODEL.FPN.IN_FEATURES": ["res2", "res3"]},
        image_size=600,
        freeze_at=1,
        strides=(4, 8),
    )
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == ((600,), 600)


def test_a_program_is_not_run(tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')\n")
    with pytest.raises(ValueError, match=r"mine\.py: a LazyConfig of Detectron2 is a program, which is not run"):
        config(config_file=tmp_path / "mine.py")


def test_crops_and_flips_of_detectron2_reach_the_images(tmp_path):
    dataset = two_squares(tmp_path)
    keys = {"INPUT.CROP.ENABLED": True, "INPUT.CROP.TYPE": "relative", "INPUT.CROP.SIZE": [0.5, 1.0]}
    batch = next(iter(train_loader(dataset, config(keys, image_size=64), batch_size=2, seed=0)))
    assert [tuple(record["image"].shape) for record in batch] == [(3, 64, 128)] * 2
    images = {}
    for flip in ("none", "vertical"):
        cfg = config({"INPUT.RANDOM_FLIP": flip}, image_size=64)
        batches = iter(train_loader(dataset, cfg, batch_size=8, seed=0))
        images[flip] = torch.stack([record["image"] for record in next(batches)])
    turned = images["none"].flip(2)
    same = [torch.equal(a, b) for a, b in zip(images["vertical"], images["none"], strict=True)]
    upside_down = [torch.equal(a, b) for a, b in zip(images["vertical"], turned, strict=True)]
    assert any(same) and any(upside_down) and all(a or b for a, b in zip(same, upside_down, strict=True))
