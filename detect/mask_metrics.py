"""COCO's metrics of masks: as those of boxes, with the overlap of the objects' areas in the place of their boxes'."""

from collections.abc import Sequence

from detect.coco_evaluation import coco_evaluation
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
    evaluation = coco_evaluation(split, detections, "segm", outlines)
    stats = zip(MASK_METRICS, evaluation.stats, strict=False)  # -1 where there is nothing to measure
    return {**{name: None if value < 0 else 100.0 * float(value) for name, value in stats}, "mask_metric": _TEXT}
