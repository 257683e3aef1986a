"""Which detections are right, image by image: AP of any draw of the images follows, with nothing matched again.

The scores themselves are in detections.json.gz; here is only the order that they give.
"""

import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pruning.errors import Refusal

if TYPE_CHECKING:
    from faster_coco_eval import COCOeval_faster

MISS, HIT, IGNORED = 0, 1, 2  # no box of its own; the first on its box; on a crowd or difficult box
_HIGHEST_IOU = 1 - 1e-10  # that pycocotools asks for
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


def coco_matches(evaluation: "COCOeval_faster") -> Matches:
    """As pycocotools' evaluateImg, all areas, 100 detections an image and class: from a COCOeval that was evaluated.

    Its IoUs are used, not computed again. Classes are in the order of their ids, as in its precision, and images too.
    """
    parameters = evaluation.params
    truth, found = (_by_place(coco.dataset["annotations"]) for coco in (evaluation.cocoGt, evaluation.cocoDt))
    boxes = np.zeros((len(parameters.imgIds), len(parameters.catIds)), dtype=np.int64)
    kept = []
    for k, category in enumerate(parameters.catIds):
        scores, images, flags = [np.empty(0)], [], [np.empty((0, len(parameters.iouThrs)), dtype=np.uint8)]
        for i, image in enumerate(parameters.imgIds):
            crowd = np.array([a["iscrowd"] for a in truth.get((image, category), ())], dtype=bool)
            boxes[i, k] = len(crowd) - crowd.sum()
            if (image, category) in found:
                best = np.sort([-d["score"] for d in found[image, category]])[: parameters.maxDets[-1]]
                scores.append(best)
                images += [i] * len(best)
                if len(crowd):
                    flags.append(_match(np.asarray(evaluation.ious[image, category]), crowd, parameters.iouThrs))
                else:
                    flags.append(np.full((len(best), len(parameters.iouThrs)), MISS, dtype=np.uint8))
        order = np.argsort(np.concatenate(scores), kind="stable")
        kept.append((np.array(images, dtype=np.int64)[order], np.concatenate(flags)[order]))
    names = [evaluation.cocoGt.cats[category]["name"] for category in parameters.catIds]
    return Matches.of_classes(names, parameters.iouThrs, boxes, kept)


class _Placed(TypedDict):
    """Of an annotation in COCO's form what matching reads: `iscrowd` of a true box, `score` of one that was found."""

    image_id: int
    category_id: int
    iscrowd: int
    score: float


def _by_place(annotations: Sequence[_Placed]) -> dict[tuple[int, int], list[_Placed]]:
    found = defaultdict(list)
    for annotation in annotations:
        found[annotation["image_id"], annotation["category_id"]].append(annotation)
    return dict(found)


def _match(shared: NDArray[np.float64], crowd: NDArray[np.bool_], ious: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Flags (D, T) of the detections of one image and class, best first, from their IoU with its boxes (D, G).

    At each threshold a detection takes the free box it overlaps most, of equal ones the last; crowd boxes stay free.
    """
    needed = np.minimum(ious, _HIGHEST_IOU)[:, None]
    taken = np.zeros((len(ious), len(crowd)), dtype=bool)
    flags = np.full((len(shared), len(ious)), MISS, dtype=np.uint8)
    for d in np.flatnonzero((shared >= needed.min()).any(axis=1)):
        reached = shared[d] >= needed  # (T, G)
        free = reached & ~crowd & ~taken
        best = len(crowd) - 1 - np.where(free, shared[d], -1.0)[:, ::-1].argmax(axis=1)
        hit = free.any(axis=1)
        taken[hit, best[hit]] = True
        flags[d] = np.where(hit, HIT, np.where((reached & crowd).any(axis=1), IGNORED, MISS))
    return flags


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
