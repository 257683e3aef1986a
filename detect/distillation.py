"""Distillation of detectors: a pruned one is trained on what the unpruned one makes of the same images as well.

After Chen et al., Learning Efficient Object Detection Models with Knowledge Distillation, NIPS 2017:

    loss = detector's losses + features * L_features + logits * L_logits
    L_features = mean over the FPN's levels of the mean over images, channels and places of (student - teacher)^2
    L_logits   = mean over the regions of T^2 KL(q_teacher || q_student), q: softmax of a region's class logits over T

L_features is their hint loss in its L2 form. The levels have as many channels in both detectors, so their adaptation
layer is left out. For L_logits the teacher's box head looks, in the teacher's own features, at the regions that the
student proposed and sampled, in each stage of a cascade. Deviations: all classes weigh the same, where they weigh the
background by 1.5; the losses of the labels keep their weight, where they share it out; boxes are not distilled, where
they bound the student's error by the teacher's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import Res5ROIHeads, ROIHeads
from detectron2.structures import Boxes
from torch import Tensor, nn

from classify.distillation import divergence, freeze
from detect.build import Detector
from detect.settings import Distillation


@dataclass
class _Seen:
    """What a detector computed in one forward pass; boxes and class logits once for each stage of the box head."""

    images: Tensor = field(init=False)  # (N, 3, H, W), normalised and padded
    features: dict[str, Tensor] = field(init=False)
    boxes: list[Sequence[Boxes]] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)  # (R, C + 1), the background last

    def note_backbone(self, _: nn.Module, inputs: tuple[Tensor], features: dict[str, Tensor]) -> None:
        self.images, self.features = inputs[0], features

    def note_boxes(self, _: nn.Module, inputs: tuple[list[Tensor], Sequence[Boxes]]) -> None:
        self.boxes.append(inputs[1])

    def note_logits(self, _: nn.Module, __: tuple[Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        self.logits.append(outputs[0])


@dataclass(frozen=True)
class Teacher:
    """The unpruned detector, which is frozen, and how much it counts."""

    detector: Detector
    settings: Distillation

    def __post_init__(self) -> None:
        freeze(self.detector)

    def teach(self, student: Detector, forward: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of `student` that `forward` computes by it, and those of the distillation."""
        with _watched(student) as seen:
            losses = forward()
        return {**losses, **self._losses(seen)}

    def _losses(self, seen: _Seen) -> dict[str, Tensor]:
        settings, found = self.settings, {}
        with torch.no_grad():
            features = self.detector.backbone(seen.images)
        if settings.features:
            levels = [F.mse_loss(seen.features[name].float(), level.float()) for name, level in features.items()]
            found["loss_distill_features"] = settings.features * torch.stack(levels).mean()
        if settings.logits:
            with torch.no_grad():
                answers = [_class_logits(self.detector.roi_heads, features, b, k) for k, b in enumerate(seen.boxes)]
            stages = [
                divergence(logits, wanted, settings.temperature) / max(1, len(logits))
                for logits, wanted in zip(seen.logits, answers, strict=True)
            ]
            found["loss_distill_logits"] = settings.logits * torch.stack(stages).mean()
        return found


@contextmanager
def _watched(detector: Detector) -> Iterator[_Seen]:
    """Within the block what `detector` computes is noted; once for one forward pass."""
    seen = _Seen()
    hooks = [detector.backbone.register_forward_hook(seen.note_backbone)]
    if isinstance(detector, GeneralizedRCNN):
        heads = detector.roi_heads
        pooler = heads.pooler if isinstance(heads, Res5ROIHeads) else heads.box_pooler
        hooks.append(pooler.register_forward_pre_hook(seen.note_boxes))
        hooks += [predictor.register_forward_hook(seen.note_logits) for predictor in _stages(heads.box_predictor)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _class_logits(heads: ROIHeads, features: dict[str, Tensor], boxes: Sequence[Boxes], stage: int) -> Tensor:
    """Class logits (R, C + 1) of a box head, at a stage of it, for given boxes of each image."""
    if isinstance(heads, Res5ROIHeads):
        maps = heads._shared_roi_transform([features[name] for name in heads.in_features], list(boxes))
        regions = maps.mean(dim=(2, 3))
    else:
        pooled = heads.box_pooler([features[name] for name in heads.box_in_features], list(boxes))
        regions = _stages(heads.box_head)[stage](pooled)
    logits: Tensor = _stages(heads.box_predictor)[stage](regions)[0]
    return logits


def _stages(part: nn.Module) -> list[nn.Module]:
    """The modules of a part that a cascade has several of."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]
