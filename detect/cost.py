"""Multiply-adds of a detector, by parts. Convolutions and linear layers only, one image.

A weight that a mask removed counts as no parameter and no multiply-add, as in a classifier (pruning/cost.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, ROIHeads
from torch import Tensor, nn

from detect.settings import Distillation
from detect.single_level import masked_parts
from pruning.cost import TRAINING_FACTOR, count_activations, count_macs, count_macs_by_shapes, count_params, map_areas

_SMALL = 2  # of the backbone's divisor: the side of an image that the count is checked on


@dataclass(frozen=True)
class DetectorMacs:
    """Multiply-adds of one image: classifier's part, FPN (0 of a single level), RPN head, box head on all regions.

    Of RetinaNet `rpn` is its head, and there are no regions. Of Mask R-CNN `roi_heads` has the masks of objects too.
    """

    backbone: int
    fpn: int
    rpn: int
    roi_heads: int

    @property
    def total(self) -> int:
        return self.backbone + self.fpn + self.rpn + self.roi_heads


@dataclass(frozen=True)
class PartMacs:
    """Multiply-adds of a detector by what they are of: of one image, of one region, of the mask of one object."""

    backbone: int
    fpn: int
    rpn: int
    region: int
    mask: int

    def of(self, *, proposals: int, objects: int = 0) -> DetectorMacs:
        """One image with so many regions, and so many objects that Mask R-CNN predicts a mask of.

        Their real number can only be lower, so this is the upper bound that a comparison can share.
        """
        regions = self.region * proposals + self.mask * objects
        return DetectorMacs(self.backbone, self.fpn, self.rpn, regions)

    def evaluation(self, cfg: CfgNode) -> DetectorMacs:
        """Evaluating one image: the box head runs on every proposal, the masks' on every object found."""
        return self.of(proposals=cfg.MODEL.RPN.POST_NMS_TOPK_TEST, objects=cfg.TEST.DETECTIONS_PER_IMAGE)

    def training(self, cfg: CfgNode) -> int:
        """One image in training, forward and backward: the box head runs on the sampled regions.

        That of the masks does on those of them that are objects, which are a fraction of them at most.
        """
        regions = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
        objects = int(regions * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
        return TRAINING_FACTOR * self.of(proposals=regions, objects=objects).total

    def teacher(self, cfg: CfgNode, distill: Distillation) -> int:
        """One image that the detector looks at as a teacher: forward only, without its RPN.

        Its box head runs on the sampled regions where logits are distilled.
        """
        macs = self.of(proposals=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE)
        return macs.backbone + macs.fpn + (macs.roi_heads if distill.logits else 0)


def part_macs(
    detector: GeneralizedRCNN | RetinaNet, *, image_size: tuple[int, int], masks: Mapping[str, Tensor] | None = None
) -> PartMacs:
    """MACs of a detector on one padded image of `image_size` (height, width).

    `masks`: boolean tensors by parameter name of `masked_parts(detector)`, False where a weight is gone.
    """
    divisor = max(detector.backbone.size_divisibility, 1)
    image, small = _image(detector, image_size), _image(detector, (_SMALL * divisor,) * 2)
    names = ["backbone.bottom_up", "backbone", ""]
    body, pyramid, with_rpn = count_macs_by_shapes(_Proposer(detector), image, small, names).values()
    parts = masked_parts(detector)
    examples = dict.fromkeys(parts, image)
    per_region = per_object = 0
    if not isinstance(detector, RetinaNet):
        head, examples["stage"] = _region_head(detector)
        per_region = count_macs(head, examples["stage"])
        per_object = sum(count_macs(*part) for part in _mask_head(detector))
    gone = {part: _removed_macs(module, masks or {}, examples[part]) for part, module in parts.items()}
    return PartMacs(
        body - gone["body"],
        pyramid - body - gone.get("fpn", 0),
        with_rpn - pyramid,
        per_region - gone.get("stage", 0),
        per_object,
    )


def detector_activations(detector: GeneralizedRCNN | RetinaNet, *, image_size: tuple[int, int]) -> int:
    """`count_activations` of a detector on one padded image of `image_size` (height, width).

    As in `detector_macs` the box head counts on every proposal of an evaluation, the masks' on as many objects as it
    may find; pooling of regions does not count.
    """
    found = count_activations(_Proposer(detector), _image(detector, image_size))
    if isinstance(detector, RetinaNet):
        return found
    proposals: int = detector.proposal_generator.post_nms_topk[False]
    objects: int = detector.roi_heads.box_predictor.test_topk_per_image if _mask_head(detector) else 0
    of_masks = sum(count_activations(*part) for part in _mask_head(detector))
    return found + count_activations(*_region_head(detector)) * proposals + of_masks * objects


def detector_params(
    detector: GeneralizedRCNN | RetinaNet, masks: Mapping[str, Tensor] | None = None
) -> tuple[int, int]:
    """Parameters of the bottom-up network and of the whole detector that `masks` leave."""
    gone = {part: sum(_removed(module, masks or {}).values()) for part, module in masked_parts(detector).items()}
    return count_params(detector.backbone.bottom_up) - gone["body"], count_params(detector) - sum(gone.values())


def _removed(part: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Removed weights of each layer of `part`, by the layer's name there."""
    here = dict(part.named_parameters())
    return {name.removesuffix(".weight"): int((~mask).sum()) for name, mask in masks.items() if name in here}


def _removed_macs(part: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> int:
    """Multiply-adds of the removed weights of `part` on the input `example`."""
    removed = _removed(part, masks)
    areas = map_areas(part, example) if removed else {}
    return sum(count * areas[layer] for layer, count in removed.items())


def _image(detector: GeneralizedRCNN | RetinaNet, size: tuple[int, int]) -> Tensor:
    """A zero image (1, 3, H, W) of at least this size, as a batch of one is padded."""
    return torch.zeros(1, 3, *_padded(size, detector.backbone.size_divisibility), device=detector.pixel_mean.device)


def _padded(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    divisor = max(divisor, 1)
    return tuple(-(-side // divisor) * divisor for side in size)  # type: ignore[return-value]


class _Proposer(nn.Module):
    """Backbone and the head that looks at every place of it, before any selection of proposals or boxes."""

    def __init__(self, detector: GeneralizedRCNN | RetinaNet):
        super().__init__()
        self.backbone = detector.backbone
        one_stage = isinstance(detector, RetinaNet)
        self.head: nn.Module = detector.head if one_stage else detector.proposal_generator.rpn_head
        self.levels = detector.head_in_features if one_stage else detector.proposal_generator.in_features

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(image)
        scores, deltas = self.head([features[name] for name in self.levels])
        return (*scores, *deltas)


def _region_head(detector: GeneralizedRCNN) -> tuple[nn.Module, Tensor]:
    """What runs on each region, and a zero pooled region (1, C, h, w)."""
    heads = detector.roi_heads
    head: nn.Module
    if isinstance(heads, Res5ROIHeads):
        level, pooler, head = heads.in_features[0], heads.pooler, _Res5Head(heads)
    else:
        level, pooler, head = heads.box_in_features[0], heads.box_pooler, _BoxHead(heads)
    channels = detector.backbone.output_shape()[level].channels
    return head, torch.zeros(1, channels, *pooler.output_size, device=detector.pixel_mean.device)


def _mask_head(detector: GeneralizedRCNN) -> list[tuple[nn.Module, Tensor]]:
    """What predicts an object's mask, and a zero pooled region (1, C, h, w); nothing of a detector of boxes alone."""
    heads = detector.roi_heads
    if not heads.mask_on:
        return []
    channels = detector.backbone.output_shape()[heads.mask_in_features[0]].channels
    region = torch.zeros(1, channels, *heads.mask_pooler.output_size, device=detector.pixel_mean.device)
    return [(nn.Sequential(*heads.mask_head), region)]


class _BoxHead(nn.Module):
    """The box head and its predictor on pooled regions (R, C, h, w); of a cascade each stage's."""

    def __init__(self, heads: ROIHeads):
        super().__init__()
        cascade = isinstance(heads, CascadeROIHeads)
        self.heads = heads.box_head if cascade else nn.ModuleList([heads.box_head])
        self.predictors = heads.box_predictor if cascade else nn.ModuleList([heads.box_predictor])

    def forward(self, regions: Tensor) -> tuple[Tensor, ...]:
        stages = zip(self.heads, self.predictors, strict=True)
        return tuple(out for head, predictor in stages for out in predictor(head(regions)))


class _Res5Head(nn.Module):
    """The classifier's stage and the predictor on pooled regions (R, C, h, w)."""

    def __init__(self, heads: Res5ROIHeads):
        super().__init__()
        self.stage = heads.res5
        self.predictor: nn.Module = heads.box_predictor

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor(self.stage(regions).mean(dim=(2, 3)))
