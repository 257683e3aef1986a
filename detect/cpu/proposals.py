"""Detectron2's RPN with a faster, equal selection of proposals on the CPU.

Detectron2 decodes a box for every anchor, suppresses up to thousands of boxes per level, one against one, and
then keeps the `post_nms_topk` best of what is left. Here only the `pre_nms_topk` boxes are decoded, for all images at
once, and suppression begins with the best boxes of all levels and stops when enough are kept.
The proposals are the same: a box's fate depends only on better boxes of its level.
"""

import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms

from pruning.errors import Diverged


@PROPOSAL_GENERATOR_REGISTRY.register()
class BatchedRPN(RPN):
    """RPN whose proposals are selected faster on the CPU; elsewhere and in a trace, Detectron2's own selection runs."""

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Proposals of each image, best first; arguments as in Detectron2's RPN.

        Raises FloatingPointError if a predicted box or score is not finite in training.
        """
        # a trace would fix how many boxes are usable; Detectron2's own selection is one operator
        if pred_objectness_logits[0].device.type != "cpu" or torch.jit.is_tracing():
            return super().predict_proposals(anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes)
        with torch.no_grad():
            boxes, scores, levels = self._best_per_level(anchors, pred_objectness_logits, pred_anchor_deltas)
            finite = boxes.isfinite().all(2) & scores.isfinite()
            if self.training and not finite.all():
                raise Diverged("a predicted box or score is not finite: training has diverged")
            boxes = boxes.clamp(min=0).minimum(torch.tensor([(w, h, w, h) for h, w in image_sizes])[:, None])
            usable = finite & (boxes[..., 2:] - boxes[..., :2] > self.min_box_size).all(2)
            per_image = zip(boxes, scores, usable, image_sizes, strict=True)
            return [self._select(b[use], s[use], levels[use], size) for b, s, use, size in per_image]

    def _best_per_level(
        self, anchors: list[Boxes], logits: list[Tensor], deltas: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, K, 4), scores (N, K) and levels (K,) of each level's highest-scoring anchors."""
        topk = self.pre_nms_topk[self.training]
        boxes, scores, levels = [], [], []
        for level, (anchor, score, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
            best, index = score.topk(min(topk, score.shape[1]), dim=1)  # (N, k)
            delta = delta.gather(1, index[..., None].expand(-1, -1, delta.shape[-1]))
            decoded = self.box2box_transform.apply_deltas(
                delta.reshape(-1, delta.shape[-1]), anchor.tensor[index.reshape(-1)]
            )
            boxes.append(decoded.view(*index.shape, -1))
            scores.append(best)
            levels.append(torch.full((index.shape[1],), level))
        return torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels)

    def _select(self, boxes: Tensor, scores: Tensor, levels: Tensor, size: tuple[int, int]) -> Instances:
        """One image's proposals, suppressed; boxes (n, 4), scores (n,) and levels (n,) of what may be one."""
        order = scores.argsort(descending=True, stable=True)
        boxes, scores, levels = boxes[order], scores[order], levels[order]
        keep = suppress(boxes, scores, levels, self.nms_thresh, limit=self.post_nms_topk[self.training])
        return Instances(size, proposal_boxes=Boxes(boxes[keep]), objectness_logits=scores[keep])


def suppress(boxes: Tensor, scores: Tensor, levels: Tensor, threshold: float, *, limit: int) -> Tensor:
    """Indices of the first `limit` boxes that greedy non-maximum suppression within each level keeps.

    boxes (n, 4) as x0, y0, x1, y1, scores (n,) and levels (n,), best first. A box goes if an earlier kept one of its
    level overlaps it by an IoU above `threshold`: the best boxes can be looked at alone, and more if too few are kept.
    """
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    looked = 2 * limit
    while True:
        for level in levels[:looked].unique():
            here = (levels[:looked] == level).nonzero().squeeze(1)
            kept[here[nms(boxes[here], scores[here], threshold)]] = True
        found = kept.nonzero().squeeze(1)
        if len(found) >= limit or looked >= len(boxes):
            return found[:limit]
        looked *= 2
