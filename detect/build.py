"""Detectron2 detectors around any classifier.

The backbone is registered with Detectron2 under one name, BACKBONE_NAME, so that its own builder makes
everything else (FPN, RPN, heads) from its own config, a user's YAML included. A config cannot hold a
network: `build_detector` offers the bottom-up network to the registered builder while Detectron2 builds.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, GeneralizedRCNN, RetinaNet, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from classify.export import Signature
from detect.backbone import ClassifierBackbone, stage_after
from detect.cpu.roi_align import use_separable_roi_align
from detect.detector_config import BACKBONE_NAME, SINGLE_LEVEL_NAME, DetectorSettings, make_config, resolve
from detect.one_stage import OneStageDetector
from detect.single_level import SingleLevel, offer_stage

_OFFERED: ContextVar[ClassifierBackbone | None] = ContextVar("offered_backbone", default=None)


def build_detector(
    classifier: nn.Module, *, settings: DetectorSettings, device: str = "cpu"
) -> tuple[GeneralizedRCNN | RetinaNet, CfgNode]:
    """A Detectron2 detector with `classifier` (copied) as its backbone, and the config it was built from.

    Weights are the classifier's in the backbone and freshly drawn elsewhere (seed first). Raises
    ValueError on an unknown Detectron2 key and on settings that do not fit each other.
    """
    cfg = make_config(settings, device=device)
    wanted = resolve(settings)
    strides, norm, freeze_at = wanted.strides, wanted.norm, wanted.freeze_at
    assert strides is not None and norm is not None and freeze_at is not None
    bottom_up = ClassifierBackbone(classifier, strides=strides, norm=norm, freeze_at=freeze_at)
    stage = stage_after(classifier, strides[-1], norm=norm) if wanted.head == "c4" else None
    with _offer(bottom_up), offer_stage(stage):
        try:
            detector = build_model(cfg)
        except (AssertionError, KeyError, NotImplementedError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"Detectron2 cannot build this detector with head={wanted.head!r}: {type(error).__name__}: {error}"
            ) from error
    use_separable_roi_align(detector)
    return detector, cfg


def count_classes(weights: Mapping[str, Tensor]) -> int:
    """Number of classes of a detector with these weights."""
    if "head.cls_score.weight" in weights:  # RetinaNet: a score for each class and 4 numbers, at each anchor
        return 4 * len(weights["head.cls_score.weight"]) // len(weights["head.bbox_pred.weight"])
    first = next(name for name in weights if name.endswith("cls_score.weight"))
    return len(weights[first]) - 1  # less background


@BACKBONE_REGISTRY.register()
def build_classifier_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's builder of the offered classifier with an FPN and one max-pooled level on top."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise ValueError(f"{BACKBONE_NAME} needs a classifier: build the detector with detect.build.build_detector")
    shapes = bottom_up.output_shape()
    return FPN(
        bottom_up=bottom_up,
        in_features=list(shapes),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=_top(shapes, cfg),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _top(shapes: Mapping[str, ShapeSpec], cfg: CfgNode) -> nn.Module:
    """RetinaNet's two convolutions on the last feature, or Faster R-CNN's pooling of the last level."""
    last = max(shapes, key=lambda name: shapes[name].stride)
    if OneStageDetector.__name__ == cfg.MODEL.META_ARCHITECTURE:
        return LastLevelP6P7(shapes[last].channels, cfg.MODEL.FPN.OUT_CHANNELS, in_feature=last)
    top = LastLevelMaxPool()
    top.in_feature = f"p{_level(shapes[last].stride)}"
    return top


@BACKBONE_REGISTRY.register()
def build_classifier_single_level_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SingleLevel:
    """Detectron2's builder of the offered classifier with its last level alone."""
    bottom_up = _OFFERED.get()
    if bottom_up is None:
        raise ValueError(f"{SINGLE_LEVEL_NAME} needs a classifier: build the detector with detect.build.build_detector")
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


SIGNATURE = Signature(
    "image", {1: "height", 2: "width"}, {"boxes": "detections", "scores": "detections", "classes": "detections"}
)


class ImageDetector(nn.Module):
    """Image (3, H, W), uint8 RGB -> boxes (n, 4), scores (n,), classes (n,).

    Boxes are x0, y0, x1, y1 in pixels of the image as given; scores fall from first to last within what Detectron2's
    score threshold and suppression leave. Normalisation and padding are the detector's own, inside.
    """

    def __init__(self, detector: GeneralizedRCNN):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.detector.inference([{"image": image}], do_postprocess=False)
        return found.pred_boxes.tensor, found.scores, found.pred_classes


def example_image(size: tuple[int, int]) -> Tensor:
    """An image of noise, uint8 (3, height, width), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
