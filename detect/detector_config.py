"""Detectron2's config that follows from the settings of a detector and from what a user gives to Detectron2.

A setting that is not set is left to the user's YAML or overrides, then to our default, then to Detectron2's. A setting
and a key for the same that differ are refused, and so is a key that nothing reads (see detectron2_keys.py).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode, get_cfg

from classify.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from detect.cpu.box_head import ConvolvedBoxHead
from detect.cpu.proposals import BatchedRPN
from detect.detectron2_keys import OURS
from detect.heads import check_idle, check_strides
from detect.one_stage import OneStageDetector
from detect.settings import DetectorSettings
from detect.single_level import StageROIHeads
from detect.user_config import FREEZE_AT, check_agreement, check_read, given_keys, set_keys, stages_before
from pruning.errors import Refusal

BACKBONE_NAME = "build_classifier_fpn_backbone"
SINGLE_LEVEL_NAME = "build_classifier_single_level_backbone"


def make_config(
    settings: DetectorSettings,
    *,
    num_classes: int | None,
    pixel_mean: Sequence[float] = IMAGENET_MEAN,
    pixel_std: Sequence[float] = IMAGENET_STD,
    device: str = "cpu",
) -> CfgNode:
    """Detectron2's config: its defaults, ours, the user's YAML, the overrides, the settings that are set.

    `num_classes`: None where they are not known yet, in a config that is only checked. `pixel_mean`, `pixel_std`: the
    classifier's, RGB in 0..1. ValueError for keys that nothing reads and for settings that differ from a key for the
    same.
    """
    settings = settings.resolved()
    check_strides(settings.strides)
    check_idle(settings.head, settings.stated())
    given = given_keys(settings.config_file, settings.overrides)
    check_read(given, settings.head)
    ours = _from_settings(settings, num_classes)
    check_agreement(given, ours)
    cfg = get_cfg()
    set_keys(cfg, _defaults(settings.head, settings.strides))
    set_keys(cfg, {key: g.value for key, g in given.items() if key not in _BY_NAME})
    set_keys(cfg, {key: value for key, (value, _) in ours.items()})
    set_keys(cfg, _structure(settings.head, settings.strides))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = ([255.0 * v for v in values] for values in (pixel_mean, pixel_std))
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


def _defaults(head: str, strides: tuple[int, ...]) -> dict[str, object]:
    """Where these differ from Detectron2's: as in its Base-*.yaml, and what the classifier asks for."""
    keys: dict[str, object] = {
        "MODEL.PROPOSAL_GENERATOR.NAME": BatchedRPN.__name__,
        "INPUT.FORMAT": "RGB",
        "INPUT.RANDOM_FLIP": "none",
        "DATALOADER.ASPECT_RATIO_GROUPING": False,
    }
    levels = _level_names(head, strides)
    rcnn: dict[str, object]
    if head == "c4":  # regions of 14 x 14, which the stage after the level halves
        rcnn = {"ROI_BOX_HEAD.POOLER_RESOLUTION": 14, "RPN.PRE_NMS_TOPK_TEST": 6000, "RPN.POST_NMS_TOPK_TEST": 1000}
        rcnn |= {"RPN.IN_FEATURES": levels, "ROI_HEADS.IN_FEATURES": levels}
    elif head == "retinanet":
        rcnn = {"RETINANET.IN_FEATURES": levels, "RETINANET.SMOOTH_L1_LOSS_BETA": 0.0}
    else:
        rcnn = {"ROI_BOX_HEAD.NAME": ConvolvedBoxHead.__name__, "ROI_BOX_HEAD.NUM_FC": 2}
        rcnn |= {"ROI_BOX_HEAD.POOLER_RESOLUTION": 7, "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": head == "cascade"}
        rcnn |= {"RPN.PRE_NMS_TOPK_TRAIN": 2000, "RPN.PRE_NMS_TOPK_TEST": 1000, "RPN.POST_NMS_TOPK_TRAIN": 1000}
        rcnn |= {"RPN.IN_FEATURES": levels, "ROI_HEADS.IN_FEATURES": levels[:-1]}
    return keys | {f"MODEL.{name}": value for name, value in rcnn.items()}


def _structure(head: str, strides: tuple[int, ...]) -> dict[str, object]:
    """What follows from the head and the strides alone."""
    heads = {"fpn": "StandardROIHeads", "cascade": "CascadeROIHeads", "c4": StageROIHeads.__name__}
    return {
        "MODEL.META_ARCHITECTURE": OneStageDetector.__name__ if head == "retinanet" else "GeneralizedRCNN",
        "MODEL.ROI_HEADS.NAME": heads.get(head, ""),
        "MODEL.BACKBONE.NAME": SINGLE_LEVEL_NAME if head == "c4" else BACKBONE_NAME,
        "MODEL.FPN.IN_FEATURES": [f"s{s}" for s in strides],
    }


def _from_settings(settings: DetectorSettings, num_classes: int | None) -> dict[str, tuple[object, object]]:
    """Detectron2's keys of the settings that are set: what each is set to, and the setting itself."""
    stated = {f"model.{name}": value for name, value in settings.stated().items()}
    if num_classes is not None:
        stated["dataset: number of classes"] = num_classes
    forms: dict[str, Callable[[Any], object]] = {
        FREEZE_AT: lambda count: count and count + stages_before(settings.strides),
        "MODEL.ANCHOR_GENERATOR.SIZES": lambda sizes: _by_level(sizes, settings.head),
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": lambda ratios: [list(ratios)],
        "INPUT.MIN_SIZE_TRAIN": lambda size: (size,),
    }
    set_here = [(key, stated[name]) for key, (name, _) in OURS.items() if name in stated and key not in _BY_NAME]
    return {key: (forms[key](value) if key in forms else value, value) for key, value in set_here}


def _by_level(sizes: Sequence[float], head: str) -> list[list[float]]:
    """The anchor sizes of each level; c4 has all on its one."""
    return [[float(size) for size in sizes]] if head == "c4" else [_scales(size, head) for size in sizes]


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
