"""The outlines of objects in a COCO file: what Mask R-CNN learns from. They are read where it is asked for alone."""

import json
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from detect.data.coco import kept_key, read_json
from detect.data.coco_fields import BadField, as_polygons
from detect.data.images import Images
from detect.data.kept import Kept, kept
from detect.data.records import Encoded, Outline, Split
from pruning.errors import Refusal

# `letters` bytes of the texts from `text` on are JSON: polygons, a run-length encoding's counts, or what is wrong
_ENTRY = np.dtype([("text", "<i8"), ("letters", "<i8"), ("kind", "u1")])
_NONE, _POLYGONS, _RUNS, _BAD = range(4)


@dataclass(frozen=True, eq=False)
class Outlines(Mapping[int, Outline]):
    """Outlines of the objects `wanted` (K,), by their boxes' `number`; each is made when it is asked for.

    `entries`: one for each annotation of the file. `sizes`: (height, width) of each one's image.
    `encoded`: all as run-length encodings.
    """

    entries: NDArray[np.void]
    texts: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    wanted: NDArray[np.int64]
    encoded: bool

    def __len__(self) -> int:
        return len(self.wanted)

    def __iter__(self) -> Iterator[int]:
        return iter(self.wanted.tolist())

    @cached_property
    def _there(self) -> NDArray[np.bool_]:
        found = np.zeros(len(self.entries), dtype=bool)
        found[self.wanted] = True
        return found

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < len(self._there) and bool(self._there[number])

    def __getitem__(self, number: int) -> Outline:
        if number not in self:
            raise KeyError(number)
        height, width = self.sizes[number].tolist()
        read = self.read(number)
        if self.entries["kind"][number] == _RUNS:
            return {"size": [height, width], "counts": read.encode()}
        polygons = [array("d", polygon) for polygon in read]
        return _encoded(polygons, (height, width)) if self.encoded else polygons

    def read(self, number: int) -> Any:
        """The JSON of an annotation."""
        text, letters, _ = self.entries[number].item()
        return json.loads(self.texts[text : text + letters].tobytes())

    @property
    def any_encoded(self) -> bool:
        """Is one a run-length encoding? Detectron2 then wants all as bitmaps."""
        return len(self) > 0 and (self.encoded or bool((self.entries["kind"][self.wanted] == _RUNS).any()))


def read_outlines(split: Split, of: NDArray[np.bool_] | None = None, *, encoded: bool = False) -> Outlines:
    """The outline of each object that training sees, or of each that is one `of` (B,), by its box's `number`.

    `encoded`: all as run-length encodings. ValueError where the split is not of a COCO file, or an object has no
    outline that can be read.
    """
    images = split.images
    wanted = images.of_box("number")[images.trainable & ~images.of_box("crowd") if of is None else of]
    if (wanted < 0).any():
        raise Refusal(f"{split.source}: it has no outlines of objects, of which masks are learned; a COCO file may")
    every = Images.all_of(images.table)
    known = every.of_box("number") >= 0
    numbers = every.of_box("number")[known]
    sizes = np.zeros((int(numbers.max(initial=-1)) + 1, 2), dtype=np.int64)
    sizes[numbers] = every.sizes[every.of_boxes[known]]
    found = _kept(split, numbers, sizes)
    outlines = Outlines(found.arrays["entries"].view(_ENTRY), found.arrays["texts"], sizes, wanted, encoded)
    without = wanted[outlines.entries["kind"][wanted] == _BAD]
    if len(without):
        raise Refusal(
            f"{split.source}: {len(without)} of {len(wanted)} objects have no outline of which a mask could be learned,"
            f" such as {outlines.read(without[0])}"
        )
    return outlines


def _kept(split: Split, numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> Kept:
    """`entries` and `texts` of the annotations `numbers`, whose images have `sizes` (height, width) by number."""
    key = None if split.kept is None else kept_key(split.source, "outlines")

    def make() -> tuple[Kept, bool]:
        annotations = read_json(split.source, _packed)["annotations"]
        entries, texts = np.zeros(len(sizes), _ENTRY), bytearray()
        for number in numbers.tolist():
            kind, what = _found(annotations[number], number, tuple(sizes[number].tolist()))
            text = json.dumps(what).encode()
            entries[number] = (len(texts), len(text), kind)
            texts += text
        found = Kept({}, {"entries": entries.view(np.uint8), "texts": np.frombuffer(bytes(texts), np.uint8)})
        return found, key is not None and kept_key(split.source, "outlines") == key

    return make()[0] if split.kept is None else kept(split.kept, key, make)


def _packed(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation with its id and its outline alone, polygons as a tuple of arrays where they are such."""
    if "segmentation" not in entry:
        return entry
    packed: dict[str, Any] = {key: entry[key] for key in ("id", "segmentation") if key in entry}
    with suppress(BadField):
        packed["segmentation"] = tuple(array("d", polygon) for polygon in as_polygons(entry))
    return packed


def _found(annotation: Mapping[str, object], number: int, size: tuple[int, int]) -> tuple[int, object]:
    """The kind of an entry and what its JSON says."""
    try:
        outline = _outline(annotation, size)
    except BadField as error:
        return _BAD, f"annotation {annotation.get('id', number)!r:.40}: {error}"
    if isinstance(outline, dict):
        counts = outline["counts"]
        return _RUNS, counts.decode() if isinstance(counts, bytes) else counts
    return _POLYGONS, [polygon.tolist() for polygon in outline]


def _outline(annotation: Mapping[str, object], size: tuple[int, int]) -> Outline:
    """BadField where `segmentation` is neither polygons nor a run-length encoding of the image's (height, width)."""
    encoding = annotation.get("segmentation")
    if isinstance(encoding, tuple):
        return list(encoding)
    if not isinstance(encoding, dict):  # what was not packed is no outline, and this says why
        return [array("d", polygon) for polygon in as_polygons(annotation)]
    if encoding.get("size") != list(size):
        raise BadField(f"segmentation of size {encoding.get('size')!r:.40}, the image is of {list(size)}")
    counts = encoding.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(n) is int and n >= 0 for n in runs) and sum(runs) == size[0] * size[1]
    if not whole:  # pycocotools would leave what is missing to chance
        raise BadField(f"segmentation counts {counts!r:.60} are no run-length encoding of the image")
    encoded: Encoded = mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    return encoded


def _runs(text: str) -> list[int] | None:
    """COCO's compressed counts: digits of 5 bits from 0, the lowest first, each but the last with the bit 32.

    A number is signed by its last digit's bit 16, and from the fourth on is what it is above the one before last.
    None where this is no such text.
    """
    runs: list[int] = []
    number = shift = 0
    for digit in (ord(letter) - ord("0") for letter in text):
        if not 0 <= digit < 64:
            return None
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            signed = number - (1 << shift) if digit & 16 else number
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return None if shift else runs


def _encoded(polygons: "list[array[float]]", size: tuple[int, int]) -> Encoded:
    """The run-length encoding of polygons in an image of `size` (height, width)."""
    encoded: Encoded = mask.merge(mask.frPyObjects([list(polygon) for polygon in polygons], *size))
    return encoded
