"""COCO's evaluation of boxes and of masks: pycocotools' numbers to the bit, computed by hotcoco."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from hotcoco import COCO, COCOeval

from detect.data.records import Detection, Outline, Split
from pruning.errors import Failure


def coco_evaluation(
    split: Split,
    detections: Sequence[Detection],
    kind: Literal["bbox", "segm"],
    outlines: Mapping[int, Outline] | None = None,
) -> COCOeval:
    """Accumulated and summarized; images and classes have the ids of `Split.truth`.

    A detection of a class that the split does not have counts for nothing, as in pycocotools. `segm`: of masks, which
    each detection has then, and `outlines` of the boxes to find, by their `number`, as run lengths.
    Failure in a fork of a process that has evaluated.
    """
    if _first_process() != os.getpid():
        raise Failure(
            "COCO's metrics: this process was forked from one that has computed them, whose threads it would wait for "
            "without an end; start it by multiprocessing's method spawn or forkserver"
        )
    place = {image.id: k for k, image in enumerate(split.images, 1)}
    rows = split.rows
    # only one of them is told: the size of an object is that of its box, if there is one
    shape: Literal["bbox", "segmentation"] = "bbox" if kind == "bbox" else "segmentation"
    placed: list[dict[str, Any]] = [
        {
            "image_id": place[d["image_id"]],
            "category_id": rows[d["category_id"]],
            "score": d["score"],
            shape: d[shape],
        }
        for d in detections
        if d["category_id"] in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO({**split.truth(outlines)})
        evaluation = COCOeval(truth, truth.loadRes(placed), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@cache
def _first_process() -> int:
    """The process that evaluated first: hotcoco's threads are its own, and a fork's memory says that it has them."""
    return os.getpid()
