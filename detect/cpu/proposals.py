"""Detectron2's RPN with a faster, equal selection of proposals on the CPU.

Detectron2 decodes a box for every anchor, suppresses up to thousands of boxes per level, one against one, and
then keeps the `post_nms_topk` best of what is left. Here only the `pre_nms_topk` boxes are decoded, and
greedy suppression runs over all levels in order of score, in blocks, until enough boxes are kept.
The proposals are the same: a box's fate depends only on better boxes of its level.
"""

import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import box_iou

from pruning.errors import Diverged

_BLOCK = 256  # boxes that are compared at once


@PROPOSAL_GENERATOR_REGISTRY.register()
class BlockwiseRPN(RPN):
    """RPN whose proposals are selected blockwise on the CPU; elsewhere and in a trace, Detectron2's own runs."""

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
        # a trace would fix how many blocks there are; Detectron2's own selection is one operator
        if pred_objectness_logits[0].device.type != "cpu" or torch.jit.is_tracing():
            return super().predict_proposals(anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes)
        with torch.no_grad():
            boxes, scores, levels = self._best_per_level(anchors, pred_objectness_logits, pred_anchor_deltas)
            return [self._select(boxes[n], scores[n], levels, size) for n, size in enumerate(image_sizes)]

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
        """One image's proposals: clipped to its size (height, width), large enough, suppressed."""
        finite = torch.isfinite(boxes).all(1) & torch.isfinite(scores)
        if self.training and not finite.all():
            raise Diverged("a predicted box or score is not finite: training has diverged")
        clipped = Boxes(boxes)
        clipped.clip(size)
        usable = finite & clipped.nonempty(threshold=self.min_box_size)
        order = torch.argsort(scores[usable], descending=True, stable=True)
        boxes, scores, levels = clipped.tensor[usable][order], scores[usable][order], levels[usable][order]
        keep = suppress(boxes, levels, self.nms_thresh, limit=self.post_nms_topk[self.training])
        result = Instances(size)
        result.proposal_boxes = Boxes(boxes[keep])
        result.objectness_logits = scores[keep]
        return result


def suppress(boxes: Tensor, levels: Tensor, threshold: float, *, limit: int) -> Tensor:
    """Indices of the first `limit` boxes that greedy non-maximum suppression within each level keeps.

    boxes (n, 4) as x0, y0, x1, y1, best first; levels (n,). A box goes if an earlier kept one of its level
    overlaps it by an IoU above `threshold`.
    """
    kept = torch.empty(0, dtype=torch.int64)
    for start in range(0, len(boxes), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(boxes)))
        block = block[~_overlaps(boxes, levels, kept, block, threshold).any(0)]
        kept = torch.cat([kept, block[_greedy(_overlaps(boxes, levels, block, block, threshold))]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def _overlaps(boxes: Tensor, levels: Tensor, first: Tensor, second: Tensor, threshold: float) -> Tensor:
    """(len(first), len(second)): whether two boxes of one level overlap too much."""
    same_level = levels[first, None] == levels[second]
    return (box_iou(boxes[first], boxes[second]) > threshold) & same_level


def _greedy(overlaps: Tensor) -> Tensor:
    """Mask of the boxes kept, best first: one is kept if no kept earlier one overlaps it.

    Repeating "kept unless a box kept so far overlaps" settles box after box from the best down, so its
    fixed point is the greedy solution; it takes as many rounds as the longest chain of suppressions.
    """
    earlier = overlaps.triu(diagonal=1).float()
    keep = torch.ones(len(overlaps))
    while True:
        settled = (keep @ earlier == 0).float()
        if torch.equal(settled, keep):
            return keep.bool()
        keep = settled
