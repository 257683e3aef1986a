"""Images and their boxes in arrays, which may lie in a file: an object is made of them when it is asked for.

A data set of 118,000 images with 860,000 boxes takes 60 MB so, which processes share where they are a file's; as
objects it takes a gigabyte, which each process has for itself, and which grows in workers as they count references.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from detect.data.problems import KINDS

UNKNOWN = -1  # the label of a box whose class the data set does not have

_FAULTS = ("", *KINDS)
_SEEN = [fault == "" or KINDS[fault].effect == "clipped" for fault in _FAULTS]  # by training
# `letters` bytes of the texts from `text` on are JSON of the id and the file's name, `boxes` boxes from `first` on are
# the image's. Sizes are whole numbers that may be beyond any integer type: all of them come from a double.
IMAGE = np.dtype(
    [("text", "<i8"), ("letters", "<i8"), ("first", "<i8"), ("boxes", "<i8"), ("height", "<f8"), ("width", "<f8")]
)
_NUMBERS = ("x", "y", "w", "h", "area")
# `fault`: in _FAULTS. `whole`: a bit for each of _NUMBERS that is an integer in the file
BOX = np.dtype(
    [
        *((name, "<f8") for name in _NUMBERS),
        ("label", "<i4"),
        ("crowd", "?"),
        ("difficult", "?"),
        ("truncated", "?"),
        ("fault", "u1"),
        ("number", "<i8"),
        ("whole", "u1"),
    ]
)

_Row = tuple[Any, ...]  # of IMAGE or BOX


@dataclass(frozen=True, slots=True)
class Box:
    """An annotated object, as annotated: nothing is clipped yet.

    `xywh`: left, top, width and height in pixels, edges of pixels at whole numbers. `label`: index of its class.
    `area`: square pixels; COCO's is that of the segmentation. `difficult`, `truncated`: VOC's flags. `fault`: a kind of
    detect.data.problems.KINDS. `number`: which of a COCO file's annotations it is, from 0.
    """

    xywh: tuple[float, float, float, float]
    label: int
    area: float
    crowd: bool = False
    difficult: bool = False
    truncated: bool = False
    fault: str = ""
    number: int = field(default=-1, compare=False)

    @property
    def trainable(self) -> bool:
        """Does training see it? It is neither refused nor dropped."""
        return self.label != UNKNOWN and (not self.fault or KINDS[self.fault].effect == "clipped")

    @property
    def to_find(self) -> bool:
        """Does an evaluation look at it? It is of a known class and has an extent; nothing can match one without."""
        return self.label != UNKNOWN and min(self.xywh[2:]) > 0

    def clipped(self, width: int, height: int) -> list[float]:
        """The part in an image of that size, as `xywh`; floats, since Detectron2 scales integers in integers."""
        left, top, w, h = self.xywh
        if self.fault == "":
            return [float(left), float(top), float(w), float(h)]
        x, y = max(left, 0.0), max(top, 0.0)
        return [float(x), float(y), float(min(left + w, width) - x), float(min(top + h, height) - y)]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image file with its annotated size in pixels and its boxes; `id` is the data set's own."""

    id: int | str
    file: Path
    height: int
    width: int
    boxes: Sequence[Box]


@dataclass(frozen=True, eq=False)
class Table:
    """Arrays of `IMAGE` (N,), of `BOX` (M,), image after image, and of the texts that images name, uint8."""

    images: NDArray[np.void]
    boxes: NDArray[np.void]
    texts: NDArray[np.uint8]

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "Table":
        """The same images in new arrays."""
        texts = bytearray()
        images: list[_Row] = []
        boxes: list[_Row] = []
        for record in records:
            text = json.dumps([record.id, str(record.file)]).encode()
            images.append((len(texts), len(text), len(boxes), len(record.boxes), record.height, record.width))
            boxes += map(_row, record.boxes)
            texts += text
        return cls(np.array(images, IMAGE), np.array(boxes, BOX), np.frombuffer(bytes(texts), np.uint8))


@dataclass(frozen=True, eq=False)
class Images(Sequence[ImageRecord]):
    """The images `rows` (I,) of a table, in this order; `folder` is what their files' names are relative to.

    `meaning`: the label here of each label of the table; its last entry, which is that of UNKNOWN, is UNKNOWN. Arrays
    over the boxes (B,) are in the order of the images.
    """

    table: Table
    rows: NDArray[np.int64]
    folder: Path = Path()
    meaning: tuple[int, ...] | None = None

    @classmethod
    def all_of(cls, table: Table, folder: Path = Path()) -> "Images":
        """Every image of a table."""
        return cls(table, np.arange(len(table.images)), folder)

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> "Images":
        """The same images in arrays."""
        return cls.all_of(Table.of(records))

    def take(self, places: NDArray[np.int64]) -> "Images":
        """Those at these places."""
        return replace(self, rows=self.rows[places])

    def relabelled(self, meaning: Sequence[int]) -> "Images":
        """Label k becomes meaning[k], UNKNOWN stays."""
        then = (*meaning, UNKNOWN)
        return replace(self, meaning=then if self.meaning is None else tuple(then[label] for label in self.meaning))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, place: slice) -> "Images": ...
    def __getitem__(self, place: int | slice) -> "ImageRecord | Images":
        if isinstance(place, slice):
            return replace(self, rows=self.rows[place])
        return self._record(self.table.images[self.rows[place]].item())

    def __iter__(self) -> Iterator[ImageRecord]:
        return map(self._record, self.table.images[self.rows].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and tuple(self) == tuple(other)

    def _record(self, row: _Row) -> ImageRecord:
        text, letters, first, boxes, height, width = row
        image_id, name = json.loads(self.table.texts[text : text + letters].tobytes())
        here = _Boxes(self.table, first, boxes, self.meaning)
        return ImageRecord(image_id, self.folder / name, int(height), int(width), here)

    @property
    def files(self) -> list[str]:
        """Where the files are, for whoever looks at all of them: to make their paths takes longer than to look."""
        here, texts = self.table.images[self.rows], self.table.texts.tobytes()
        starts, ends = here["text"].tolist(), (here["text"] + here["letters"]).tolist()
        named = json.loads(b"[%b]" % b",".join(texts[start:end] for start, end in zip(starts, ends, strict=True)))
        folder = "" if self.folder == Path() else str(self.folder)
        return [os.path.join(folder, name) for _, name in named]  # noqa: PTH118

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(I, 2): height and width in pixels."""
        here = self.table.images[self.rows]
        return np.stack([here["height"], here["width"]], axis=1).astype(np.int64)

    @cached_property
    def box_counts(self) -> NDArray[np.int64]:
        """(I,): how many boxes each image has."""
        return self.table.images["boxes"][self.rows]

    @cached_property
    def of_boxes(self) -> NDArray[np.int64]:
        """(B,): the place of each box's image."""
        return np.repeat(np.arange(len(self)), self.box_counts)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """(B,): where the boxes are in the table."""
        before = np.cumsum(self.box_counts) - self.box_counts
        shift = self.table.images["first"][self.rows] - before
        return np.arange(int(self.box_counts.sum())) + np.repeat(shift, self.box_counts)

    def of_box(self, name: str) -> NDArray[Any]:
        """(B,): a field of `BOX`, as the table has it."""
        return self.table.boxes[name][self._places]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(B,): `Box.label`."""
        here = self.of_box("label").astype(np.int64)
        return here if self.meaning is None else np.array(self.meaning)[here]

    @property
    def trainable(self) -> NDArray[np.bool_]:
        """(B,): `Box.trainable`."""
        return (self.labels != UNKNOWN) & np.array(_SEEN)[self.of_box("fault").astype(np.int64)]

    @property
    def to_find(self) -> NDArray[np.bool_]:
        """(B,): `Box.to_find`."""
        return (self.labels != UNKNOWN) & (np.minimum(self.of_box("w"), self.of_box("h")) > 0)


@dataclass(frozen=True, eq=False, slots=True)
class _Boxes(Sequence[Box]):
    """Boxes of a table, made when they are asked for: who goes over files needs none."""

    table: Table
    first: int
    size: int
    meaning: tuple[int, ...] | None

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, place: int) -> Box: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Box, ...]: ...
    def __getitem__(self, place: int | slice) -> Box | tuple[Box, ...]:
        return tuple(self)[place]

    def __iter__(self) -> Iterator[Box]:
        for row in self.table.boxes[self.first : self.first + self.size].tolist():
            yield _box(row, self.meaning)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return repr(tuple(self))


def _row(box: Box) -> _Row:
    numbers = (*box.xywh, box.area)
    whole = sum(1 << k for k, value in enumerate(numbers) if isinstance(value, int))
    flags = box.crowd, box.difficult, box.truncated
    return (*numbers, box.label, *flags, _FAULTS.index(box.fault), box.number, whole)


def _box(row: _Row, meaning: tuple[int, ...] | None) -> Box:
    x, y, w, h, area, label, crowd, difficult, truncated, fault, number, whole = row
    if whole:
        x, y, w, h, area = (int(v) if whole >> k & 1 else v for k, v in enumerate((x, y, w, h, area)))
    means = label if meaning is None else meaning[label]
    return Box((x, y, w, h), means, area, crowd, difficult, truncated, _FAULTS[fault], number)
