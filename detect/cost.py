"""Multiply-adds of a detector, by parts. Convolutions and linear layers only, one image."""

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import Tensor, nn

from pruning.cost import count_macs

BACKWARD_FACTOR = 3  # forward and backward cost three times the forward pass


@dataclass(frozen=True)
class DetectorMacs:
    """Multiply-adds of one image: classifier's part, FPN (0 of a single level), RPN head, box head on all regions."""

    backbone: int
    fpn: int
    rpn: int
    roi_heads: int

    @property
    def total(self) -> int:
        return self.backbone + self.fpn + self.rpn + self.roi_heads


def detector_macs(detector: GeneralizedRCNN, *, image_size: tuple[int, int], proposals: int) -> DetectorMacs:
    """MACs of a Faster R-CNN on one padded image of `image_size` (height, width) with `proposals` regions.

    The real number of regions can only be lower, so this is the upper bound that a comparison can share.
    """
    image = torch.zeros(1, 3, *_padded(image_size, detector.backbone.size_divisibility))
    image = image.to(detector.pixel_mean.device)
    body = count_macs(_Features(detector.backbone.bottom_up), image)
    pyramid = count_macs(_Features(detector.backbone), image)
    with_rpn = count_macs(_Proposer(detector), image)
    level, pooler, head = _region_head(detector.roi_heads)
    region = torch.zeros(1, detector.backbone.output_shape()[level].channels, *pooler.output_size, device=image.device)
    per_region = count_macs(head, region)
    return DetectorMacs(body, pyramid - body, with_rpn - pyramid, per_region * proposals)


def evaluation_macs(detector: GeneralizedRCNN, cfg: CfgNode, *, image_size: tuple[int, int]) -> DetectorMacs:
    """MACs of evaluating one image: the box head runs on every proposal."""
    return detector_macs(detector, image_size=image_size, proposals=cfg.MODEL.RPN.POST_NMS_TOPK_TEST)


def training_macs(detector: GeneralizedRCNN, cfg: CfgNode, *, image_size: tuple[int, int]) -> int:
    """MACs of one image in training, forward and backward: the box head runs on the sampled regions."""
    forward = detector_macs(detector, image_size=image_size, proposals=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE)
    return BACKWARD_FACTOR * forward.total


def _padded(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    divisor = max(divisor, 1)
    return tuple(-(-side // divisor) * divisor for side in size)  # type: ignore[return-value]


class _Features(nn.Module):
    """A backbone as the counter can trace it: a tuple of feature maps, no dict."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image).values())


class _Proposer(nn.Module):
    """Backbone and RPN head, before any selection of proposals."""

    def __init__(self, detector: GeneralizedRCNN):
        super().__init__()
        self.backbone = detector.backbone
        self.rpn = detector.proposal_generator

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(image)
        objectness, deltas = self.rpn.rpn_head([features[name] for name in self.rpn.in_features])
        return (*objectness, *deltas)


def _region_head(heads: Any) -> tuple[str, Any, nn.Module]:
    """The level that regions are pooled from, the pooler, and what runs on each region."""
    if isinstance(heads, Res5ROIHeads):
        return heads.in_features[0], heads.pooler, _Res5Head(heads)
    return heads.box_in_features[0], heads.box_pooler, _BoxHead(heads)


class _BoxHead(nn.Module):
    """The box head and its predictor on pooled regions (R, C, h, w)."""

    def __init__(self, heads: Any):
        super().__init__()
        self.head = heads.box_head
        self.predictor: nn.Module = heads.box_predictor

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor(self.head(regions))


class _Res5Head(nn.Module):
    """The classifier's stage and the predictor on pooled regions (R, C, h, w)."""

    def __init__(self, heads: Res5ROIHeads):
        super().__init__()
        self.stage = heads.res5
        self.predictor: nn.Module = heads.box_predictor

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor(self.stage(regions).mean(dim=(2, 3)))
