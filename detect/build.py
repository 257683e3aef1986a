"""Detectron2 detectors around any classifier.

The backbone is registered with Detectron2 under one name, BACKBONE_NAME, so that its own builder makes
everything else (FPN, RPN, heads) from its own config, a user's YAML included. A config cannot hold a
network: `build_detector` offers the bottom-up network to the registered builder while Detectron2 builds.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, GeneralizedRCNN, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from detect.backbone import ClassifierBackbone
from detect.proposals import BlockwiseRPN
from detect.roi_align import use_separable_roi_align

BACKBONE_NAME = "build_classifier_fpn_backbone"
_OFFERED: ContextVar[ClassifierBackbone | None] = ContextVar("offered_backbone", default=None)


@dataclass(frozen=True)
class DetectorSettings:
    """What defines a detector apart from its classifier. None: as in `config_file` or Detectron2."""

    num_classes: int
    image_size: int = 800  # shorter side in pixels, in training and evaluation
    max_image_size: int = 1333  # longer side in pixels
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB in 0..1, the classifier's
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    strides: tuple[int, ...] = (4, 8, 16, 32)
    norm: str = "FrozenBN"
    freeze_at: int = 0
    fpn_channels: int | None = None
    anchor_sizes: tuple[float, ...] | None = None  # pixels, one per level; default 8 x stride
    anchor_ratios: tuple[float, ...] | None = None
    rpn_batch_size: int | None = None  # anchors per image in the RPN's loss
    roi_batch_size: int | None = None  # regions per image in the heads' loss
    pre_nms_topk: int | None = None  # proposals per level, training and evaluation
    train_proposals: int | None = None  # per image, after suppression
    test_proposals: int | None = None
    box_head_dim: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)  # Detectron2 keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | None = None  # a Detectron2 YAML, merged in first


def build_detector(
    classifier: nn.Module, *, settings: DetectorSettings, device: str = "cpu"
) -> tuple[GeneralizedRCNN, CfgNode]:
    """A Detectron2 detector with `classifier` (copied) as its backbone, and the config it was built from.

    Weights are the classifier's in the backbone and freshly drawn elsewhere (seed first). Raises
    ValueError on an unknown Detectron2 key and on settings that do not fit each other.
    """
    bottom_up = ClassifierBackbone(
        classifier, strides=settings.strides, norm=settings.norm, freeze_at=settings.freeze_at
    )
    cfg = make_config(settings, device=device)
    with _offer(bottom_up):
        detector = build_model(cfg)
    use_separable_roi_align(detector)
    return detector, cfg


def make_config(settings: DetectorSettings, *, device: str = "cpu") -> CfgNode:
    """Detectron2's config: its defaults, then the user's YAML, then the settings, then the overrides."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = BlockwiseRPN.__name__
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 2000  # this line and the next: Detectron2's Base-RCNN-FPN.yaml
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 1000, 1000
    if settings.config_file is not None:
        _merge_file(cfg, settings.config_file)
    _set(cfg, _from_settings(settings, device), source="settings")
    _set(cfg, settings.overrides, source="overrides")
    _check_levels(cfg, settings.strides)
    return cfg


@BACKBONE_REGISTRY.register()
def build_classifier_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's builder of the offered classifier with an FPN and one max-pooled level on top."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise ValueError(f"{BACKBONE_NAME} needs a classifier: build the detector with detect.build.build_detector")
    shapes = bottom_up.output_shape()
    top = LastLevelMaxPool()
    top.in_feature = f"p{max(_level(s.stride) for s in shapes.values())}"
    return FPN(
        bottom_up=bottom_up,
        in_features=list(shapes),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@contextmanager
def _offer(bottom_up: ClassifierBackbone) -> Iterator[None]:
    token = _OFFERED.set(bottom_up)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def _level(stride: int) -> int:
    return int(math.log2(stride))


def _from_settings(settings: DetectorSettings, device: str) -> dict[str, Any]:
    """Detectron2's keys of the settings; those of the backbone follow from its strides."""
    levels = [f"p{_level(s)}" for s in settings.strides]
    top = f"p{_level(settings.strides[-1]) + 1}"
    anchor_sizes = settings.anchor_sizes or [8.0 * 2 ** int(p[1:]) for p in [*levels, top]]
    keys = {
        "MODEL.DEVICE": device,
        "MODEL.WEIGHTS": "",
        "MODEL.BACKBONE.NAME": BACKBONE_NAME,
        "MODEL.BACKBONE.FREEZE_AT": settings.freeze_at,
        "MODEL.FPN.IN_FEATURES": [f"s{s}" for s in settings.strides],
        "MODEL.FPN.OUT_CHANNELS": settings.fpn_channels,
        "MODEL.RPN.IN_FEATURES": [*levels, top],
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": settings.rpn_batch_size,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": settings.pre_nms_topk,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": settings.pre_nms_topk,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": settings.train_proposals,
        "MODEL.RPN.POST_NMS_TOPK_TEST": settings.test_proposals,
        "MODEL.ROI_HEADS.IN_FEATURES": levels,
        "MODEL.ROI_HEADS.NUM_CLASSES": settings.num_classes,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": settings.roi_batch_size,
        "MODEL.ROI_BOX_HEAD.FC_DIM": settings.box_head_dim,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[float(s)] for s in anchor_sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": settings.anchor_ratios and [list(settings.anchor_ratios)],
        "MODEL.PIXEL_MEAN": [255.0 * v for v in settings.pixel_mean],
        "MODEL.PIXEL_STD": [255.0 * v for v in settings.pixel_std],
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TRAIN": (settings.image_size,),
        "INPUT.MIN_SIZE_TEST": settings.image_size,
        "INPUT.MAX_SIZE_TRAIN": settings.max_image_size,
        "INPUT.MAX_SIZE_TEST": settings.max_image_size,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _set(cfg: CfgNode, values: Mapping[str, Any], *, source: str) -> None:
    known = _known_keys(cfg)
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, n=3)
            raise ValueError(
                f"{source}: {key} is not a key of Detectron2" + (f"; near: {', '.join(near)}" if near else "")
            )
        try:
            cfg.merge_from_list([key, list(value) if isinstance(value, tuple) else value])
        except ValueError as error:
            raise ValueError(f"{source}: {key}={value!r} does not fit: {error}") from error


def _known_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in node.items():
        keys += _known_keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return keys


def _merge_file(cfg: CfgNode, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: no such Detectron2 config file")
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except (KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a config of Detectron2: {' '.join(str(error).split())}") from error


def _check_levels(cfg: CfgNode, strides: tuple[int, ...]) -> None:
    wanted, sizes = len(strides) + 1, cfg.MODEL.ANCHOR_GENERATOR.SIZES
    if len(sizes) not in (1, wanted):
        raise ValueError(f"anchor_sizes has {len(sizes)} entries for {wanted} levels: strides {strides} and one on top")
