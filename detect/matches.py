"""Which detections are right, image by image: AP of any draw of the images follows, with nothing matched again.

The scores themselves are in detections.json.gz; here is only the order that they give.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from hotcoco import COCOeval
from numpy.typing import NDArray

from detect.uncollected import uncollected
from pruning.errors import Refusal

MISS, HIT, IGNORED = 0, 1, 2  # no box of its own; the first on its box; on a crowd or difficult box
_FORMAT = "matches 1"
MATCHES = "matches.npz"  # in the folder of an evaluation

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Matches:
    """The detections on I images of K classes, by class and falling score, and the boxes they were to find.

    `ious` (T,): from which IoU on a detection is right. `boxes` (I, K): to find, without crowd and difficult ones.
    `starts` (K + 1,): the detections of class k are starts[k]:starts[k + 1]. `images` (D,): the image of each, counted
    from 0 in the order of the split. `flags` (D, T): MISS, HIT or IGNORED. Equal scores are in the metric's own order.
    """

    classes: tuple[str, ...]
    ious: NDArray[np.float64]
    boxes: Integers
    starts: Integers
    images: Integers
    flags: NDArray[np.uint8]

    @classmethod
    def of_classes(
        cls,
        names: Sequence[str],
        ious: Sequence[float] | NDArray[np.float64],
        boxes: Integers,
        found: Sequence[tuple[Integers, NDArray[np.uint8]]],
    ) -> "Matches":
        """Put together from `images` and `flags` of each class."""
        starts = np.cumsum([0, *(len(images) for images, _ in found)])
        images, flags = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return cls(tuple(names), np.asarray(ious, dtype=np.float64), boxes, starts, images, flags)

    def of_class(self, k: int) -> tuple[Integers, NDArray[np.uint8]]:
        """`images` and `flags` of one class."""
        here = slice(int(self.starts[k]), int(self.starts[k + 1]))
        return self.images[here], self.flags[here]

    def problem(self) -> str | None:
        """Why these arrays cannot be matches, if they cannot: they may come from a damaged file."""
        images, classes = self.boxes.shape if self.boxes.ndim == 2 else (-1, -1)
        whole = (
            len(self.classes) == classes
            and self.starts.shape == (classes + 1,)
            and self.images.ndim == self.ious.ndim == 1
            and self.flags.shape == (len(self.images), len(self.ious))
        )
        if not whole:
            return "its arrays do not fit each other"
        if self.starts[0] != 0 or self.starts[-1] != len(self.images) or (np.diff(self.starts) < 0).any():
            return "its classes do not share its detections out"
        if len(self.images) and not 0 <= self.images.min() <= self.images.max() < images:
            return "it names images that it does not have"
        return None


def coco_matches(evaluation: COCOeval) -> Matches:
    """What an evaluation of boxes has matched, all areas, 100 detections an image and class.

    Classes are in the order of their ids, as in its precision, and images too.
    """
    again = COCOeval(evaluation.coco_gt, evaluation.coco_dt, "bbox")
    parameters = again.params  # of which all that is read is a copy
    parameters.area_rng, parameters.area_rng_lbl = parameters.area_rng[:1], parameters.area_rng_lbl[:1]
    place = {image: i for i, image in enumerate(evaluation.params.img_ids)}
    categories = evaluation.params.cat_ids
    boxes = np.zeros((len(place), len(categories)), dtype=np.int64)
    found = []
    for k, category in enumerate(categories):
        parameters.cat_ids = [category]  # one at a time: an image's matches are lists of Python's
        again.evaluate()
        with uncollected():
            matched = [one for one in again.eval_imgs if one is not None]  # images with boxes or detections
            boxes[[place[one["image_id"]] for one in matched], k] = [one["gtIgnore"].count(False) for one in matched]
            found.append(_of_class(matched, place, len(parameters.iou_thrs)))
    names = [evaluation.coco_gt.cats[category]["name"] for category in categories]
    return Matches.of_classes(names, parameters.iou_thrs, boxes, found)


def _of_class(
    matched: Sequence[Mapping[str, Any]], place: Mapping[int, int], ious: int
) -> tuple[Integers, NDArray[np.uint8]]:
    """`images` and `flags` of the detections of a class, from what is matched in each image."""
    scores: list[float] = []
    images: list[int] = []
    flags = [np.empty((0, ious), dtype=np.uint8)]
    for one in matched:
        count = len(one["dtScores"])
        scores += one["dtScores"]
        images += count * [place[one["image_id"]]]
        if one["gtIds"]:
            right = np.where(one["dtIgnore"], IGNORED, HIT)
            flags.append(np.where(one["dtMatched"], right, MISS).T.astype(np.uint8))
        else:
            flags.append(np.full((count, ious), MISS, dtype=np.uint8))
    order = np.argsort(-np.array(scores, dtype=np.float64), kind="stable")
    return np.array(images, dtype=np.int64)[order], np.concatenate(flags)[order]


def to_bytes(metrics: Mapping[str, Matches]) -> bytes:
    """A compressed npz of the matches of each metric, in the smallest types that hold them; equal data, equal bytes."""
    arrays = {"format": np.array(_FORMAT)}
    for metric, matches in metrics.items():
        for field in fields(matches):
            arrays[f"{metric}.{field.name}"] = _small(np.asarray(getattr(matches, field.name)))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes, source: str) -> dict[str, Matches]:
    """The inverse of `to_bytes`; ValueError names `source` if it is something else."""
    try:
        found = _metrics(content)
        problem = next((text for m in found.values() if (text := m.problem()) is not None), None)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        problem = str(error)
    if problem is not None:
        raise Refusal(f"{source}: not the matches of an evaluation ({problem})")
    return found


def _metrics(content: bytes) -> dict[str, Matches]:
    names = [field.name for field in fields(Matches)]
    with zipfile.ZipFile(io.BytesIO(content)):  # numpy takes other formats too
        file = np.load(io.BytesIO(content), allow_pickle=False)
    if (written := file["format"].item()) != _FORMAT:
        raise ValueError(f"its format is {written!r}, not {_FORMAT!r}")
    found = {}
    for metric in sorted({key.partition(".")[0] for key in file.files} - {"format"}):
        arrays = {name: file[f"{metric}.{name}"] for name in names}
        found[metric] = Matches(**{**arrays, "classes": tuple(arrays["classes"].tolist())})
    return found


def _small(array: NDArray[np.generic]) -> NDArray[np.generic]:
    if array.dtype.kind not in "iu":
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))
