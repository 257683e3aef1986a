"""A detector tried before any training: what it cannot do fails now, in one sentence, and not after hours."""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from detect.data.loader import train_augmentations
from pruning.errors import Refusal
from training.device import give_back_freed_memory
from training.synchronised_norm import synchronised_norms

_LARGEST = 4  # of the coarsest stride: what fails at this size fails at any
_REGIONS = 16  # of an image: what fails with so few fails with any number


def try_detector(
    detector: nn.Module, cfg: CfgNode, *, image_size: tuple[int, int], batch_size: int, divisor: int
) -> None:
    """Compute the losses of up to two blank images with a box each, their gradients, and what is detected in one.

    `image_size`: (height, width) in pixels of the data's images as the detector sees them; larger ones are tried at
    four times `divisor`, the backbone's coarsest stride. ValueError says what failed. The detector is of no use
    afterwards: its statistics change, and it looks at few regions.
    """
    height, width = (min(side, _LARGEST * divisor) for side in image_size)
    _limit_regions(detector)
    _limit_gradients(detector)
    try:
        T.AugmentationList(train_augmentations(cfg, flip=False))(T.AugInput(np.zeros((*image_size, 3), np.uint8)))
        with torch.random.fork_rng(devices=[]), EventStorage(), synchronised_norms(detector, nn.SyncBatchNorm):
            torch.manual_seed(0)
            seen = [_record(height, width, masks=cfg.MODEL.MASK_ON) for _ in range(min(batch_size, 2))]
            losses = detector.train()(seen)
            torch.stack(list(losses.values())).sum().backward()
            give_back_freed_memory()  # else the box head's first layer, packed for its product, lies there twice
            with torch.no_grad():
                detector.eval()(seen[:1])
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = " ".join(str(error).split()) or "no reason given"
        raise Refusal(
            f"detector.model: this detector cannot be trained; on blank images of {height} x {width} pixels:"
            f" {type(error).__name__}: {what}"
        ) from error


def _limit_regions(detector: nn.Module) -> None:
    """Nine tenths of a trial's time goes into regions, all of which are treated alike."""
    if isinstance(detector, GeneralizedRCNN):
        proposer, heads = detector.proposal_generator, detector.roi_heads
        heads.batch_size_per_image = min(heads.batch_size_per_image, _REGIONS)
        for most in (proposer.pre_nms_topk, proposer.post_nms_topk):
            most.update({training: min(number, _REGIONS) for training, number in most.items()})


def _limit_gradients(detector: nn.Module) -> None:
    """All of them together are as large as the detector, and that of a box head's first layer is a third of it."""
    for layer in detector.modules():
        if isinstance(layer, nn.Linear):  # whose own gradients are products and sums, which cannot fail
            layer.requires_grad_(False)
    for parameter in detector.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget)


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _record(height: int, width: int, *, masks: bool) -> dict[str, object]:
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]]))
    instances.gt_classes = torch.zeros(1, dtype=torch.int64)
    if masks:
        instances.gt_masks = BitMasks(torch.ones(1, height, width, dtype=torch.bool))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": instances}
