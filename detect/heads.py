"""The heads that a detector can have, one entry each; nothing else asks which head it is by its name.

The names in them are Detectron2's, which is not imported here.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pruning.errors import Refusal

_PROPOSALS = ("rpn_batch_size", "roi_batch_size", "pre_nms_topk", "train_proposals", "test_proposals")
_BOX_HEAD = "box_head_dim"


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is around a backbone of strides (4, 8, 16, 32), or its own `strides` if left out.

    `roi_heads`: Detectron2's part that looks at regions; none of a detector of one stage. `box_head`: has that fully
    connected layers on each region? `masks`: does it predict one for each object? `levels_on_top`: of the FPN, above
    the backbone's levels; None: no FPN, the last level alone. `anchors`: sides of a place's anchor boxes
    over its stride. `counted`: what its costs count after the parts that see the whole image, for a report; empty: no
    more than those.
    `keys`: Detectron2's below MODEL, where they differ from its defaults, as in its Base-*.yaml.
    """

    keys: Mapping[str, object]
    roi_heads: str | None
    strides: tuple[int, ...] = (4, 8, 16, 32)
    levels_on_top: int | None = 1
    box_head: bool = True
    masks: bool = False
    anchors: tuple[float, ...] = (8.0,)
    counted: str = "the box head on every proposal"

    @property
    def pyramid(self) -> bool:
        """Is there an FPN?"""
        return self.levels_on_top is not None

    @property
    def idle(self) -> tuple[str, ...]:
        """Settings that mean nothing with this head."""
        unused = [] if self.pyramid else ["fpn_channels"]
        unused += [] if self.roi_heads else _PROPOSALS
        return tuple(unused if self.box_head else [*unused, _BOX_HEAD])

    def levels(self, strides: Sequence[int]) -> list[str]:
        """The names of the levels that Detectron2's backbone hands on, those on top last."""
        if self.levels_on_top is None:
            return [f"s{strides[-1]}"]
        numbers = [stride.bit_length() - 1 for stride in strides]
        return [f"p{k}" for k in range(numbers[0], numbers[-1] + 1 + self.levels_on_top)]

    def sides(self, size: float) -> list[float]:
        """The anchor sizes of a level whose smallest is `size`, in pixels."""
        return [size * side / self.anchors[0] for side in self.anchors]


_FPN = {
    "ROI_BOX_HEAD.NUM_FC": 2,
    "ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "RPN.PRE_NMS_TOPK_TEST": 1000,
    "RPN.POST_NMS_TOPK_TRAIN": 1000,
}

HEADS = {
    # Faster R-CNN (arXiv 1506.01497) on a feature pyramid (arXiv 1612.03144)
    "fpn": Head(roi_heads="StandardROIHeads", keys=_FPN),
    # Cascade R-CNN (arXiv 1712.00726): three box heads, each on the boxes of the one before
    "cascade": Head(
        roi_heads="CascadeROIHeads",
        keys={**_FPN, "ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True},
        counted="all three box heads on every proposal",
    ),
    # Mask R-CNN (arXiv 1703.06870): Faster R-CNN with a mask of each object, of four convolutions on regions of 14 x 14
    "mask": Head(
        roi_heads="StandardROIHeads",
        keys={**_FPN, "ROI_MASK_HEAD.NUM_CONV": 4},
        masks=True,
        counted="the box head on every proposal and the mask head on as many objects as it may find",
    ),
    # Faster R-CNN on one level (arXiv 1512.03385): regions of 14 x 14, which the stage after the level halves
    "c4": Head(
        roi_heads="StageROIHeads",
        keys={},
        levels_on_top=None,
        box_head=False,
        anchors=(2.0, 4.0, 8.0, 16.0, 32.0),
        counted="on every proposal the classifier's stage for regions, which the backbone's costs leave out",
    ),
    # RetinaNet (arXiv 1708.02002): one stage; three anchor sizes to an octave, section 4
    "retinanet": Head(
        roi_heads=None,
        keys={"RETINANET.SMOOTH_L1_LOSS_BETA": 0.0},
        strides=(8, 16, 32),
        levels_on_top=2,
        box_head=False,
        anchors=tuple(4.0 * 2 ** (k / 3) for k in range(3)),
        counted="",
    ),
}


def heads_that(have: Callable[[Head], object]) -> tuple[str, ...]:
    """Names of the heads of which `have` is true."""
    return tuple(name for name, head in HEADS.items() if have(head))


def check_strides(strides: tuple[int, ...]) -> None:
    """ValueError unless each is twice the one before, from a power of two on."""
    doubling = all(b == 2 * a for a, b in pairwise(strides))
    if not strides or not doubling or strides[0] < 1 or strides[0] & (strides[0] - 1):
        raise Refusal(f"strides={strides} must double from one to the next, such as (4, 8, 16, 32)")


def check_idle(head: str, stated: Container[str]) -> None:
    """ValueError for settings among those that are stated which mean nothing with this head."""
    unused = [name for name in HEADS[head].idle if name in stated]
    if unused:
        raise Refusal(f"head: {head} has no {' and no '.join(unused)}; set it to null or leave it out")
