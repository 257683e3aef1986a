"""One split of a detection data set in memory: what training, checking and evaluation all read.

Detectron2's dicts and COCO's ground truth are made from it, whatever format the data set has on disk.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, Protocol, TypeAlias, TypedDict, overload

import numpy as np

from detect.data.images import UNKNOWN, Box, ImageRecord, Images
from detect.data.problems import KINDS, Problem, by_kind

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from torch import Tensor


class Encoded(TypedDict):
    """A mask as COCO's run-length encoding; `size` is (height, width)."""

    size: list[int]
    counts: str | bytes


# As Detectron2 takes them: polygons of x, y, x, y, ... or a run-length encoding. Arrays take a fourth of a list's
# memory, and their text is all of them, by which what a picture became is kept.
Outline: TypeAlias = "list[array[float]] | Encoded"


class Annotation(TypedDict):
    """An object among Detectron2's annotations; `category_id` is the label."""

    bbox: list[float]
    bbox_mode: int
    category_id: int
    iscrowd: int
    segmentation: NotRequired[Outline]


class Record(TypedDict):
    """An image among Detectron2's dataset dicts: with `annotations` as listed; with `image` (3, H, W), uint8, as read,
    and then with `instances` where it is trained on."""

    file_name: str
    image_id: int | str
    height: int
    width: int
    annotations: NotRequired[list[Annotation]]
    image: NotRequired["Tensor"]
    instances: NotRequired["Instances"]


class Detection(TypedDict):
    """A box in COCO's result format; the ids are the data set's own, `bbox` as `Box.xywh`."""

    image_id: int | str
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[Encoded]


class Truth(TypedDict):
    """COCO's ground truth."""

    images: list[dict[str, int]]
    annotations: list[dict[str, object]]
    categories: list[dict[str, int | str]]


class SplitSummary(TypedDict):
    """What a result says of a split: counts of images and boxes, `usable` what is left to train on, and whose they
    are."""

    images: int
    images_without_boxes: int
    boxes: int
    crowd: int
    difficult: int
    truncated: int
    per_class: dict[str, int]
    usable: int
    problems: dict[str, int]
    notes: list[str]
    fingerprint: str


@dataclass(frozen=True)
class Split:
    """Images, classes in the order of a detector's outputs, and what was found wrong while reading.

    `source`: the file that lists the images. `voc_year`: whose metric is the data set's own; None: COCO's. `notes`:
    sentences on what reading decided, for the result and the report. `declared`: somebody listed the classes; else they
    are those that boxes have. `kept`: the folder where what was read of `source` is kept, if it is.
    """

    source: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]  # the data set's id of each class
    images: Images
    problems: tuple[Problem, ...]
    voc_year: int | None = None
    notes: tuple[str, ...] = ()
    declared: bool = True
    kept: Path | None = None

    def boxes(self) -> Iterator[Box]:
        for image in self.images:
            yield from image.boxes

    def records(self, *, filter_empty: bool = False, outlines: Mapping[int, Outline] | None = None) -> "Records":
        """Detectron2's dataset dicts with the boxes that training sees; `filter_empty` leaves out images without.

        `outlines`: of the objects, by their boxes' `number`, for detectors that predict masks.
        """
        images = self.images
        if filter_empty:
            images = images.take(np.unique(images.of_boxes[images.trainable & ~images.of_box("crowd")]))
        return Records(images, outlines or {})

    @property
    def rows(self) -> dict[int, int]:
        """The place of each category id among all by size, in which order COCO's metrics have the classes."""
        return {category: k for k, category in enumerate(sorted(self.category_ids))}

    def truth(self, outlines: Mapping[int, Outline] | None = None) -> Truth:
        """COCO's ground truth, boxes as annotated, without what no evaluator needs.

        Image k has id k + 1 and classes are numbered by `rows`, so that any ids of the data set do.
        Difficult boxes are crowd boxes there: finding one is neither right nor wrong. Annotation ids start at 1:
        evaluators take 0 for "no match". `outlines`: of the objects to find, by their boxes' `number`.
        """
        rows = self.rows
        annotations: list[dict[str, object]] = []
        for k, image in enumerate(self.images, 1):
            for box in image.boxes:
                if not box.to_find:
                    continue
                place = {"id": len(annotations) + 1, "image_id": k, "category_id": rows[self.category_ids[box.label]]}
                ignored = int(box.crowd or box.difficult)
                found = {**place, "bbox": list(box.xywh), "area": box.area, "iscrowd": ignored}
                annotations.append(found if outlines is None else {**found, "segmentation": outlines[box.number]})
        images = [{"id": k} for k in range(1, len(self.images) + 1)]
        categories: list[dict[str, int | str]] = [
            {"id": rows[c], "name": n} for c, n in zip(self.category_ids, self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def summary(self) -> SplitSummary:
        """Counts for a result: what there is, what training clips and drops (`usable` is left), and a fingerprint."""
        images = self.images
        crowd, difficult, truncated = (images.of_box(flag) for flag in ("crowd", "difficult", "truncated"))
        labels = images.labels
        per_class = np.bincount(labels[labels != UNKNOWN], minlength=len(self.classes)).tolist()
        return {
            "images": len(images),
            "images_without_boxes": int((images.box_counts == 0).sum()),
            "boxes": len(labels),
            "crowd": int(crowd.sum()),
            "difficult": int(difficult.sum()),
            "truncated": int(truncated.sum()),
            "per_class": dict(zip(self.classes, per_class, strict=True)),
            "usable": int((images.trainable & ~crowd).sum()),
            "problems": {kind: len(places) for kind, places in by_kind(self.problems).items()},
            "notes": [*self.notes, *self._changes()],
            "fingerprint": self.fingerprint(),
        }

    def _changes(self) -> list[str]:
        """A sentence for each kind of thing that is not used as it is in the files."""
        return [
            f"{self.source}: {len(places)} {kind} ({KINDS[kind].effect}), such as {places[0]}"
            for kind, places in by_kind(self.problems).items()
            if KINDS[kind].effect in ("dropped", "repaired") or (KINDS[kind].effect == "clipped" and KINDS[kind].fault)
        ]

    def fingerprint(self) -> str:
        """SHA-256 over classes, image ids, names, sizes and boxes; where the files are does not count."""
        digest = hashlib.sha256(repr((self.classes, self.category_ids)).encode())
        for image in self.images:
            boxes = [(box.xywh, box.label, box.crowd, box.difficult) for box in image.boxes]
            digest.update(repr((image.id, image.file.name, image.height, image.width, boxes)).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """Detectron2's dataset dicts of images, each made when it is asked for; they hold the boxes that training sees."""

    images: Images
    outlines: Mapping[int, Outline]

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Records": ...
    def __getitem__(self, place: "int | slice") -> "Record | Records":
        if isinstance(place, slice):
            return Records(self.images[place], self.outlines)
        return _record(self.images[place], self.outlines)


class DetectionDataset(Protocol):
    """Where a split is and how it is read, such as CocoDataset and VocDataset."""

    @property
    def split(self) -> Split:
        """The split in memory, read when it is first asked for."""
        ...


def class_names(dataset: DetectionDataset) -> list[str]:
    """Names of the classes in the order of a detector's outputs: by category id, or as they were given."""
    return list(dataset.split.classes)


def _record(image: ImageRecord, outlines: Mapping[int, Outline]) -> Record:
    from detectron2.structures import BoxMode  # late: nothing else here needs it

    annotations: list[Annotation] = []
    for box in filter(lambda box: box.trainable, image.boxes):
        place = box.clipped(image.width, image.height)
        mode, crowd = BoxMode.XYWH_ABS, int(box.crowd)
        annotations.append({"bbox": place, "bbox_mode": mode, "category_id": box.label, "iscrowd": crowd})
        if box.number in outlines:
            annotations[-1]["segmentation"] = outlines[box.number]
    return {
        "file_name": str(image.file),
        "image_id": image.id,
        "height": image.height,
        "width": image.width,
        "annotations": annotations,
    }
