"""The settings of a detector, and Detectron2's config that follows from them and from what a user gives to Detectron2.

A setting that is None is left to the user's YAML or overrides, then to our default, then to Detectron2's. A setting and
a key for the same that differ are refused, and so is a key that nothing reads (see detectron2_keys.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from detect.cpu.proposals import BlockwiseRPN
from detect.heads import HEADS, IDLE, check_strides, default_strides
from detect.one_stage import OneStageDetector
from detect.single_level import StageROIHeads
from detect.user_config import Given, check_agreement, check_read, given_keys, head_of, set_keys, strides_of
from pruning.errors import Refusal

BACKBONE_NAME = "build_classifier_fpn_backbone"
SINGLE_LEVEL_NAME = "build_classifier_single_level_backbone"
_NORM, _FREEZE_AT = "MODEL.RESNETS.NORM", "MODEL.BACKBONE.FREEZE_AT"


@dataclass(frozen=True)
class DetectorSettings:
    """What defines a detector apart from its classifier. None: as `config_file` or `overrides` say, or the default.

    `head`: "fpn", a feature pyramid over `strides` and one level on top; "cascade", the same with Detectron2's three
    box heads of Cascade R-CNN (arXiv 1712.00726); "c4", a single level, the last of `strides` (earlier ones only count
    stages for `freeze_at`), and on each region the classifier's stage after that level, as in the Faster R-CNN of He et
    al. (arXiv 1512.03385, appendix A), there stride 16 and res5; or "retinanet", one-stage: a pyramid with two levels
    on top and no regions (arXiv 1708.02002).
    """

    num_classes: int | None  # None: not known yet, in a config that is only checked
    head: str | None = None  # fpn
    image_size: int | None = None  # shorter side in pixels, in training and evaluation; 800
    max_image_size: int | None = None  # longer side in pixels; 1333
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB in 0..1, the classifier's
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    strides: tuple[int, ...] | None = None  # (4, 8, 16, 32); of retinanet (8, 16, 32)
    norm: str | None = None  # FrozenBN
    freeze_at: int | None = None  # 0
    fpn_channels: int | None = None
    anchor_sizes: tuple[float, ...] | None = None  # pixels; one per level (8 x stride), c4: all on the level;
    # retinanet: one per level (4 x stride), at three scales within an octave
    anchor_ratios: tuple[float, ...] | None = None
    rpn_batch_size: int | None = None  # anchors per image in the RPN's loss
    roi_batch_size: int | None = None  # regions per image in the heads' loss
    pre_nms_topk: int | None = None  # proposals per level, training and evaluation
    train_proposals: int | None = None  # per image, after suppression
    test_proposals: int | None = None
    box_head_dim: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)  # Detectron2 keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | Mapping[str, Any] | None = None  # a Detectron2 YAML, or what `with_content` read of it


def settings_from(model: Mapping[str, Any], **others: Any) -> DetectorSettings:
    """Settings from plain JSON data."""
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
    return DetectorSettings(**settings, **others)


def resolve(settings: DetectorSettings) -> DetectorSettings:
    """The settings with head, strides, norm and freeze_at as they, Detectron2's keys in them, or the defaults say."""
    given = given_keys(settings.config_file, settings.overrides)
    head = settings.head or head_of(given) or "fpn"
    if head not in HEADS:
        raise Refusal(f"head={head!r} is not one of {', '.join(HEADS)}")
    two_stages = "MODEL.META_ARCHITECTURE" in given and given["MODEL.META_ARCHITECTURE"].value == "GeneralizedRCNN"
    if head_of(given) not in (None, head) or (two_stages and head == "retinanet"):
        asked = head_of(given) or "two stages"
        raise Refusal(f"head={head!r} and Detectron2's keys, which ask for {asked!r}, differ")
    said = strides_of(given)
    if settings.strides is not None and said not in (None, settings.strides):
        raise Refusal(f"strides={settings.strides} and Detectron2's features, of strides {said}, differ")
    strides = settings.strides or said or default_strides(head)
    check_strides(strides)
    norm = settings.norm or (str(given[_NORM].value) if _NORM in given else "FrozenBN")
    freeze_at = settings.freeze_at if settings.freeze_at is not None else _freeze_at(given, strides)
    return replace(settings, head=head, strides=strides, norm=norm, freeze_at=freeze_at)


def _freeze_at(given: Mapping[str, Given], strides: tuple[int, ...]) -> int:
    """Detectron2 counts a ResNet's stages, 2 for that of stride 4; ours are those of the strides."""
    if _FREEZE_AT not in given or not given[_FREEZE_AT].value:
        return 0
    count = int(str(given[_FREEZE_AT].value)) - _stages_before(strides)
    if count < 1:
        raise Refusal(
            f"{given[_FREEZE_AT].source}: {_FREEZE_AT}={given[_FREEZE_AT].value} ends before the first of strides"
            f" {strides}, up to which layers are frozen together: set detector.model.freeze_at to 0 or 1 instead"
        )
    return count


def _stages_before(strides: tuple[int, ...]) -> int:
    """Stages of a ResNet in Detectron2 that lie before the first stride, other than the stem."""
    return int(math.log2(strides[0])) - 2


def make_config(settings: DetectorSettings, *, device: str = "cpu") -> CfgNode:
    """Detectron2's config: its defaults, ours, the user's YAML, the overrides, the settings that are not None.

    ValueError for keys that nothing reads and for settings that differ from a key for the same.
    """
    settings = resolve(settings)
    assert settings.head is not None and settings.strides is not None
    _check_idle(settings, settings.head)
    given = given_keys(settings.config_file, settings.overrides)
    check_read(given, settings.head)
    ours = {key: value for key, value in _from_settings(settings).items() if value[0] is not None}
    check_agreement(given, ours)
    cfg = get_cfg()
    set_keys(cfg, _defaults(settings.head, settings.strides))
    set_keys(cfg, {key: g.value for key, g in given.items() if key not in _BY_NAME})
    set_keys(cfg, {key: value for key, (value, _) in ours.items()})
    set_keys(cfg, _structure(settings, device))
    if "MODEL.ANCHOR_GENERATOR.SIZES" not in given.keys() | ours.keys():
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = _anchor_sizes(cfg, settings.head, settings.strides)
    _check_levels(cfg, settings.head, settings.strides)
    if settings.head == "cascade":
        _check_cascade(cfg)
    return cfg


# keys that say by a name of Detectron2's what _structure says by ours
_BY_NAME = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.FPN.IN_FEATURES",
    "MODEL.RESNETS.OUT_FEATURES",
)


def _defaults(head: str, strides: tuple[int, ...]) -> dict[str, Any]:
    """Where these differ from Detectron2's: as in its Base-*.yaml, and what the classifier asks for."""
    keys: dict[str, Any] = {
        "MODEL.PROPOSAL_GENERATOR.NAME": BlockwiseRPN.__name__,
        "INPUT.FORMAT": "RGB",
        "INPUT.RANDOM_FLIP": "none",
        "DATALOADER.ASPECT_RATIO_GROUPING": False,
    }
    levels = _level_names(head, strides)
    rcnn: dict[str, Any]
    if head == "c4":  # regions of 14 x 14, which the stage after the level halves
        rcnn = {"ROI_BOX_HEAD.POOLER_RESOLUTION": 14, "RPN.PRE_NMS_TOPK_TEST": 6000, "RPN.POST_NMS_TOPK_TEST": 1000}
        rcnn |= {"RPN.IN_FEATURES": levels, "ROI_HEADS.IN_FEATURES": levels}
    elif head == "retinanet":
        rcnn = {"RETINANET.IN_FEATURES": levels, "RETINANET.SMOOTH_L1_LOSS_BETA": 0.0}
    else:
        rcnn = {"ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead", "ROI_BOX_HEAD.NUM_FC": 2}
        rcnn |= {"ROI_BOX_HEAD.POOLER_RESOLUTION": 7, "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": head == "cascade"}
        rcnn |= {"RPN.PRE_NMS_TOPK_TRAIN": 2000, "RPN.PRE_NMS_TOPK_TEST": 1000, "RPN.POST_NMS_TOPK_TRAIN": 1000}
        rcnn |= {"RPN.IN_FEATURES": levels, "ROI_HEADS.IN_FEATURES": levels[:-1]}
    return keys | {f"MODEL.{name}": value for name, value in rcnn.items()}


def _structure(settings: DetectorSettings, device: str) -> dict[str, Any]:
    """What follows from the classifier, the head and the strides alone."""
    assert settings.strides is not None
    heads = {"fpn": "StandardROIHeads", "cascade": "CascadeROIHeads", "c4": StageROIHeads.__name__}
    one_stage, single = settings.head == "retinanet", settings.head == "c4"
    return {
        "MODEL.META_ARCHITECTURE": OneStageDetector.__name__ if one_stage else "GeneralizedRCNN",
        "MODEL.ROI_HEADS.NAME": heads.get(str(settings.head), ""),
        "MODEL.BACKBONE.NAME": SINGLE_LEVEL_NAME if single else BACKBONE_NAME,
        "MODEL.FPN.IN_FEATURES": [f"s{s}" for s in settings.strides],
        "MODEL.DEVICE": device,
        "MODEL.WEIGHTS": "",
        "MODEL.PIXEL_MEAN": [255.0 * v for v in settings.pixel_mean],
        "MODEL.PIXEL_STD": [255.0 * v for v in settings.pixel_std],
    }


def _from_settings(settings: DetectorSettings) -> dict[str, tuple[Any, Any]]:
    """Detectron2's keys of the settings: what each is set to, and the setting itself; None where that is not set."""
    s = settings
    sizes = s.anchor_sizes
    by_level = [_scales(x, str(s.head)) for x in sizes or ()]
    if sizes and s.head == "c4":
        by_level = [[float(x) for x in sizes]]
    return {
        "MODEL.ROI_HEADS.NUM_CLASSES": (s.num_classes, s.num_classes),
        "MODEL.RETINANET.NUM_CLASSES": (s.num_classes, s.num_classes),
        _NORM: (s.norm, s.norm),
        _FREEZE_AT: (s.freeze_at and s.freeze_at + _stages_before(s.strides or (4,)), s.freeze_at),
        "MODEL.FPN.OUT_CHANNELS": (s.fpn_channels, s.fpn_channels),
        "MODEL.ANCHOR_GENERATOR.SIZES": (by_level or None, sizes),
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": (s.anchor_ratios and [list(s.anchor_ratios)], s.anchor_ratios),
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (s.rpn_batch_size, s.rpn_batch_size),
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": (s.pre_nms_topk, s.pre_nms_topk),
        "MODEL.RPN.PRE_NMS_TOPK_TEST": (s.pre_nms_topk, s.pre_nms_topk),
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": (s.train_proposals, s.train_proposals),
        "MODEL.RPN.POST_NMS_TOPK_TEST": (s.test_proposals, s.test_proposals),
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (s.roi_batch_size, s.roi_batch_size),
        "MODEL.ROI_BOX_HEAD.FC_DIM": (s.box_head_dim, s.box_head_dim),
        "INPUT.MIN_SIZE_TRAIN": (s.image_size and (s.image_size,), s.image_size),
        "INPUT.MIN_SIZE_TEST": (s.image_size, s.image_size),
        "INPUT.MAX_SIZE_TRAIN": (s.max_image_size, s.max_image_size),
        "INPUT.MAX_SIZE_TEST": (s.max_image_size, s.max_image_size),
    }


def _check_idle(settings: DetectorSettings, head: str) -> None:
    for name in IDLE.get(head, ()):
        if getattr(settings, name) is not None:
            raise Refusal(f"{name}={getattr(settings, name)} means nothing with head={head!r}; leave it out")


def _level_names(head: str, strides: tuple[int, ...]) -> list[str]:
    """The levels that Detectron2's backbone hands on."""
    if head == "c4":
        return [f"s{strides[-1]}"]
    last = int(math.log2(strides[-1]))
    top = [f"p{last + 1}", f"p{last + 2}"] if head == "retinanet" else [f"p{last + 1}"]
    return [*(f"p{int(math.log2(s))}" for s in strides), *top]


def _scales(size: float, head: str) -> list[float]:
    """The anchor sizes of a level; RetinaNet's three are a third of an octave apart (arXiv 1708.02002, section 4)."""
    return [size * 2 ** (k / 3) for k in range(3)] if head == "retinanet" else [float(size)]


def _anchor_sizes(cfg: CfgNode, head: str, strides: tuple[int, ...]) -> list[list[float]]:
    """Detectron2's: 32 pixels at stride 4 (RetinaNet: 8), twice as many on the next level; c4: 32 to 512 at 16."""
    if head == "c4":
        return [[strides[-1] * 2.0**k for k in range(1, 6)]]
    levels = _levels_read(cfg, head)
    return [_scales((4.0 if head == "retinanet" else 8.0) * 2 ** int(name.removeprefix("p")), head) for name in levels]


def _levels_read(cfg: CfgNode, head: str) -> list[str]:
    return cfg.MODEL.RETINANET.IN_FEATURES if head == "retinanet" else cfg.MODEL.RPN.IN_FEATURES


def _check_levels(cfg: CfgNode, head: str, strides: tuple[int, ...]) -> None:
    there, read = _level_names(head, strides), _levels_read(cfg, head)
    node = "RETINANET" if head == "retinanet" else "RPN"
    wanted = {f"MODEL.{node}.IN_FEATURES": read}
    if head != "retinanet":
        wanted["MODEL.ROI_HEADS.IN_FEATURES"] = cfg.MODEL.ROI_HEADS.IN_FEATURES
    for key, names in wanted.items():
        if not names or set(names) - set(there):
            raise Refusal(f"{key}={names}: the levels of head={head!r} with strides {strides} are {there}")
    generator = cfg.MODEL.ANCHOR_GENERATOR
    for name, values in (("anchor_sizes", generator.SIZES), ("anchor_ratios", generator.ASPECT_RATIOS)):
        if len(values) not in (1, len(read)):
            raise Refusal(
                f"{name} has {len(values)} entries for {len(read)} levels: strides {strides}, levels {', '.join(read)}"
            )


def _check_cascade(cfg: CfgNode) -> None:
    cascade, first = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise Refusal("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG=False: a cascade has one box for all classes")
    if len(cascade.BBOX_REG_WEIGHTS) != len(cascade.IOUS):
        raise Refusal(
            f"MODEL.ROI_BOX_CASCADE_HEAD has {len(cascade.IOUS)} IOUS and {len(cascade.BBOX_REG_WEIGHTS)}"
            " BBOX_REG_WEIGHTS; give one of each a stage"
        )
    if not cascade.IOUS or list(first) != [cascade.IOUS[0]]:
        raise Refusal(
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS={list(first)} is not the first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS="
            f"{list(cascade.IOUS)}"
        )
