"""Detectron2's config that follows from the settings of a detector and from what a user gives to Detectron2.

A setting that is not set is left to the user's YAML or overrides, then to our default, then to Detectron2's. A setting
and a key for the same that differ are refused, and so is a key that nothing reads (see detectron2_keys.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.roi_heads import CascadeROIHeads

from classify.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from detect.cpu.box_head import ConvolvedBoxHead
from detect.cpu.proposals import BatchedRPN
from detect.detectron2_keys import OURS
from detect.heads import HEADS, Head, check_idle, check_strides
from detect.one_stage import OneStageDetector
from detect.settings import DetectorSettings
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
    head, strides = HEADS[settings.head], settings.strides
    check_strides(strides)
    check_idle(settings.head, settings.stated())
    given = given_keys(settings.config_file, settings.overrides)
    check_read(given, settings.head)
    ours = _from_settings(settings, num_classes)
    check_agreement(given, ours)
    cfg = get_cfg()
    set_keys(cfg, _defaults(head, strides))
    set_keys(cfg, {key: g.value for key, g in given.items() if key not in _BY_NAME})
    set_keys(cfg, {key: value for key, (value, _) in ours.items()})
    set_keys(cfg, _structure(head, strides))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = ([255.0 * v for v in values] for values in (pixel_mean, pixel_std))
    if "MODEL.ANCHOR_GENERATOR.SIZES" not in given.keys() | ours.keys():
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = _anchor_sizes(cfg, head, strides)
    _check_levels(cfg, settings.head, strides)
    if head.roi_heads == CascadeROIHeads.__name__:
        _check_cascade(cfg)
    return cfg


# keys that say by a name of Detectron2's what _structure says by ours
_BY_NAME = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.ROI_HEADS.NAME",
    "MODEL.MASK_ON",
    "MODEL.FPN.IN_FEATURES",
    "MODEL.RESNETS.OUT_FEATURES",
)


def _defaults(head: Head, strides: tuple[int, ...]) -> dict[str, object]:
    """Where these differ from Detectron2's: as in its Base-*.yaml, and what the classifier asks for."""
    keys: dict[str, object] = {
        "MODEL.PROPOSAL_GENERATOR.NAME": BatchedRPN.__name__,
        "INPUT.FORMAT": "RGB",
        "INPUT.RANDOM_FLIP": "none",
        "DATALOADER.ASPECT_RATIO_GROUPING": False,
    }
    keys |= {f"MODEL.{name}": value for name, value in head.keys.items()}
    keys |= {"MODEL.ROI_BOX_HEAD.NAME": ConvolvedBoxHead.__name__} if head.box_head else {}
    levels = head.levels(strides)
    if head.roi_heads is None:
        return keys | {"MODEL.RETINANET.IN_FEATURES": levels}
    # regions are pooled from the levels that read the backbone, or from the only one
    pooled = levels[: -head.levels_on_top] if head.levels_on_top else levels
    return keys | {"MODEL.RPN.IN_FEATURES": levels, "MODEL.ROI_HEADS.IN_FEATURES": pooled}


def _structure(head: Head, strides: tuple[int, ...]) -> dict[str, object]:
    """What follows from the head and the strides alone."""
    return {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN" if head.roi_heads else OneStageDetector.__name__,
        "MODEL.ROI_HEADS.NAME": head.roi_heads or "",
        "MODEL.MASK_ON": head.masks,
        "MODEL.BACKBONE.NAME": BACKBONE_NAME if head.pyramid else SINGLE_LEVEL_NAME,
        "MODEL.FPN.IN_FEATURES": [f"s{s}" for s in strides],
    }


def _from_settings(settings: DetectorSettings, num_classes: int | None) -> dict[str, tuple[object, object]]:
    """Detectron2's keys of the settings that are set: what each is set to, and the setting itself."""
    stated = {f"model.{name}": value for name, value in settings.stated().items()}
    if num_classes is not None:
        stated["dataset: number of classes"] = num_classes
    forms: dict[str, Callable[[Any], object]] = {
        FREEZE_AT: lambda count: count and count + stages_before(settings.strides),
        "MODEL.ANCHOR_GENERATOR.SIZES": lambda sizes: _by_level(sizes, HEADS[settings.head]),
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": lambda ratios: [list(ratios)],
        "INPUT.MIN_SIZE_TRAIN": lambda size: (size,),
    }
    set_here = [(key, stated[name]) for key, (name, _) in OURS.items() if name in stated and key not in _BY_NAME]
    return {key: (forms[key](value) if key in forms else value, value) for key, value in set_here}


def _by_level(sizes: Sequence[float], head: Head) -> list[list[float]]:
    """The anchor sizes of each level; a single level has all on its one."""
    return [head.sides(size) for size in sizes] if head.pyramid else [[float(size) for size in sizes]]


def _anchor_sizes(cfg: CfgNode, head: Head, strides: tuple[int, ...]) -> list[list[float]]:
    """Detectron2's: 32 pixels at stride 4 (RetinaNet: 8), twice as many on the next level; c4: 32 to 512 at 16."""
    if not head.pyramid:
        return [[strides[-1] * side for side in head.anchors]]
    return [[2.0 ** int(name.removeprefix("p")) * side for side in head.anchors] for name in _levels_read(cfg, head)]


def _levels_read(cfg: CfgNode, head: Head) -> list[str]:
    return cfg.MODEL.RPN.IN_FEATURES if head.roi_heads else cfg.MODEL.RETINANET.IN_FEATURES


def _check_levels(cfg: CfgNode, name: str, strides: tuple[int, ...]) -> None:
    head = HEADS[name]
    there, read = head.levels(strides), _levels_read(cfg, head)
    wanted = {f"MODEL.{'RPN' if head.roi_heads else 'RETINANET'}.IN_FEATURES": read}
    if head.roi_heads:
        wanted["MODEL.ROI_HEADS.IN_FEATURES"] = cfg.MODEL.ROI_HEADS.IN_FEATURES
    for key, names in wanted.items():
        if not names or set(names) - set(there):
            raise Refusal(f"{key}={names}: the levels of head={name!r} with strides {strides} are {there}")
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
