"""The heads that a detector can have, and what of its settings means nothing with one."""

from collections.abc import Container
from itertools import pairwise

from pruning.errors import Refusal

HEADS = ("fpn", "cascade", "c4", "retinanet")
IDLE: dict[str, tuple[str, ...]] = {
    "c4": ("fpn_channels", "box_head_dim"),
    "retinanet": (
        "rpn_batch_size",
        "roi_batch_size",
        "pre_nms_topk",
        "train_proposals",
        "test_proposals",
        "box_head_dim",
    ),
}


def default_strides(head: str) -> tuple[int, ...]:
    """As in Detectron2's Base-*.yaml of the head."""
    return (8, 16, 32) if head == "retinanet" else (4, 8, 16, 32)


def check_strides(strides: tuple[int, ...]) -> None:
    """ValueError unless each is twice the one before, from a power of two on."""
    doubling = all(b == 2 * a for a, b in pairwise(strides))
    if not strides or not doubling or strides[0] < 1 or strides[0] & (strides[0] - 1):
        raise Refusal(f"strides={strides} must double from one to the next, such as (4, 8, 16, 32)")


def check_idle(head: str, stated: Container[str]) -> None:
    """ValueError for settings among those that are stated which mean nothing with this head."""
    unused = [name for name in IDLE.get(head, ()) if name in stated]
    if unused:
        raise Refusal(f"head: {head} has no {' and no '.join(unused)}; set it to null or leave it out")
