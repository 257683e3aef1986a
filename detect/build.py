"""Detectron2 detectors around any classifier.

The backbone is registered with Detectron2 under one name, BACKBONE_NAME, so that its own builder makes
everything else (FPN, RPN, heads) from its own config, a user's YAML included. A config cannot hold a
network: `build_detector` offers the bottom-up network to the registered builder while Detectron2 builds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeAlias

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, META_ARCH_REGISTRY, GeneralizedRCNN, RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from classify.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from detect.backbone import ClassifierBackbone, stage_after
from detect.cpu.roi_align import use_separable_roi_align
from detect.detector_config import BACKBONE_NAME, SINGLE_LEVEL_NAME, make_config
from detect.heads import HEADS
from detect.one_stage import OneStageDetector
from detect.settings import DetectorSettings
from detect.single_level import SingleLevel, offer_stage
from pruning.errors import Refusal
from pruning.graph.shapes import fill_with_zeros, parameters_without_values

Detector: TypeAlias = GeneralizedRCNN | RetinaNet
Config: TypeAlias = CfgNode  # Detectron2's, which detect/ alone imports
_OFFERED: ContextVar[ClassifierBackbone | None] = ContextVar("offered_backbone", default=None)


def build_detector(
    classifier: nn.Module,
    settings: DetectorSettings,
    *,
    num_classes: int,
    pixel_mean: Sequence[float] = IMAGENET_MEAN,
    pixel_std: Sequence[float] = IMAGENET_STD,
    device: str = "cpu",
    blank: bool = False,
) -> tuple[Detector, Config]:
    """A Detectron2 detector with `classifier` (copied) as its backbone, and the config it was built from.

    `pixel_mean`, `pixel_std`: what the classifier's input is normalised by, RGB in 0..1.
    Weights are the classifier's in the backbone and freshly drawn elsewhere (seed first). `blank`: they are zero
    elsewhere, and in the backbone where the classifier is on the meta device; for plans, as zeros take neither time
    nor memory. Raises ValueError on an unknown Detectron2 key and on settings that do not fit each other.
    """
    cfg = make_config(settings, num_classes=num_classes, pixel_mean=pixel_mean, pixel_std=pixel_std, device=device)
    wanted = settings.resolved()
    strides, norm = wanted.strides, wanted.norm
    bottom_up = ClassifierBackbone(classifier, strides=strides, norm=norm, freeze_at=wanted.freeze_at)
    stage = None if HEADS[wanted.head].pyramid else stage_after(classifier, strides[-1], norm=norm)
    with _offer(bottom_up), offer_stage(stage):
        try:
            detector = _build(cfg, blank)
        except (AssertionError, KeyError, NotImplementedError, TypeError, RuntimeError) as error:
            raise Refusal(
                f"Detectron2 cannot build this detector with head={wanted.head!r}: {type(error).__name__}: {error}"
            ) from error
    use_separable_roi_align(detector)
    return detector, cfg


def _build(cfg: CfgNode, blank: bool) -> Detector:
    """As Detectron2's `build_model`, which moves a detector before anything could fill it."""
    with parameters_without_values() if blank else nullcontext():
        detector: Detector = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    if blank:
        fill_with_zeros(detector)
    return detector.to(torch.device(cfg.MODEL.DEVICE))


@BACKBONE_REGISTRY.register()
def build_classifier_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's builder of the offered classifier with an FPN and one max-pooled level on top."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise Refusal(f"{BACKBONE_NAME} needs a classifier: build the detector with detect.build.build_detector")
    shapes = bottom_up.output_shape()
    return FPN(
        bottom_up=bottom_up,
        in_features=list(shapes),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block(shapes, cfg),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def top_block(shapes: Mapping[str, ShapeSpec], cfg: CfgNode) -> nn.Module:
    """RetinaNet's two convolutions on the last feature, or Faster R-CNN's pooling of the last level."""
    last = max(shapes, key=lambda name: shapes[name].stride)
    if cfg.MODEL.META_ARCHITECTURE in (OneStageDetector.__name__, RetinaNet.__name__):
        return LastLevelP6P7(shapes[last].channels, cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last)
    top = LastLevelMaxPool()
    top.in_feature = f"p{_level(shapes[last].stride)}"
    return top


@BACKBONE_REGISTRY.register()
def build_classifier_single_level_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SingleLevel:
    """Detectron2's builder of the offered classifier with its last level alone."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise Refusal(f"{SINGLE_LEVEL_NAME} needs a classifier: build the detector with detect.build.build_detector")
    return SingleLevel(bottom_up)


@contextmanager
def _offer(bottom_up: ClassifierBackbone) -> Iterator[None]:
    token = _OFFERED.set(bottom_up)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def _level(stride: int) -> int:
    return int(math.log2(stride))
