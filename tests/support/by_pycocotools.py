"""pycocotools' own evaluation, which is what COCO's metrics are held to, and small sets with all that is special."""

import contextlib
import io

from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.data.images import Box
from support.scenes_and_guesses import in_split


def by_pycocotools(split, detections, kind="bbox", outlines=None):
    """pycocotools' COCOeval, accumulated and summarized."""
    place = {image.id: k for k, image in enumerate(split.images, 1)}
    shape = "bbox" if kind == "bbox" else "segmentation"
    placed = [
        {
            "image_id": place[d["image_id"]],
            "category_id": split.rows[d["category_id"]],
            "score": d["score"],
            shape: d[shape],
        }
        for d in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = split.truth(outlines)
        for image in truth.dataset["images"]:
            image |= {"height": split.images[0].height, "width": split.images[0].width}
        truth.createIndex()
        if placed:
            found = truth.loadRes(placed)
        else:  # which it cannot read
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


_CORNERS = st.tuples(*(st.integers(low, 12) for low in (0, 0, 1, 1))).map(lambda at: tuple(8.0 * v for v in at))
_LABELS = st.integers(0, 2)
_BOXES = st.builds(
    lambda xywh, label, crowd: Box(xywh, label, xywh[2] * xywh[3], crowd=crowd),
    _CORNERS,
    _LABELS,
    st.sampled_from((False, False, True)),
)


@st.composite
def splits_and_detections(draw):
    """Up to four images of three classes, one with id 0, and their detections.

    Corners are on a grid, so that overlaps are equal and areas on the borders of small, medium and large; of scores
    there are four; boxes may be crowds; images and classes may have no boxes, no detections, or neither.
    """
    split = in_split(draw(st.lists(st.lists(_BOXES, max_size=5), min_size=1, max_size=4)), ids=(9, 0, 7))
    near = [box.xywh for image in split.images for box in image.boxes]
    corners = st.one_of(_CORNERS, st.sampled_from(near)) if near else _CORNERS
    scores = st.sampled_from((0.0, 0.25, 0.5, 1.0))
    found = draw(st.lists(st.tuples(st.integers(0, len(split.images) - 1), corners, _LABELS, scores), max_size=24))
    return split, [
        {"image_id": image, "category_id": split.category_ids[label], "bbox": list(xywh), "score": score}
        for image, xywh, label, score in found
    ]
