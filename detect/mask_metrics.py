"""COCO's metrics of masks: as those of boxes, with the overlap of the objects' areas in the place of their boxes'."""

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask

from detect.data.outlines import read_outlines
from detect.data.records import Detection, Split
from pruning.errors import Refusal

MASK_METRICS = ("mask_AP", "mask_AP50", "mask_AP75")
_TEXT = "COCO mask AP, likewise"


def mask_metrics(split: Split, detections: Sequence[Detection]) -> dict[str, float | str | None]:
    """MASK_METRICS in 0..100 of detections in COCO's result format, and `mask_metric`, what was measured, in words.

    Where the split has no outlines to measure masks by there are no MASK_METRICS, and the words say so.
    """
    try:
        outlines = read_outlines(split, split.images.to_find, encoded=True)
    except Refusal as error:
        return {"mask_metric": f"mask AP not measured: {error}"}
    place = {image.id: k for k, image in enumerate(split.images, 1)}
    # without its box a result's size is that of its mask
    placed: list[Mapping[str, object]] = [
        {"image_id": place[d["image_id"]], **{key: d[key] for key in ("category_id", "score", "segmentation")}}
        for d in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(split.truth(outlines))
        evaluation = COCOeval_faster(truth, truth.loadRes(placed or [_nothing(split)]), iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = zip(MASK_METRICS, evaluation.stats, strict=False)  # -1 where there is nothing to measure
    return {**{name: None if value < 0 else 100.0 * float(value) for name, value in stats}, "mask_metric": _TEXT}


def _nothing(split: Split) -> dict[str, object]:
    """A detection that counts for nothing: an empty list of them is refused."""
    empty = np.zeros((split.images[0].height, split.images[0].width), dtype=np.uint8, order="F")
    return {"image_id": 1, "category_id": split.category_ids[0], "score": 0.0, "segmentation": mask.encode(empty)}
