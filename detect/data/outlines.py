"""The outlines of objects in a COCO file: what Mask R-CNN learns from. They are read where it is asked for alone."""

from array import array
from collections.abc import Callable, Mapping

from pycocotools import mask

from detect.data.coco import read_json
from detect.data.coco_fields import BadField, as_polygons
from detect.data.images import Box
from detect.data.records import Encoded, Outline, Split
from pruning.errors import Refusal


def read_outlines(
    split: Split, of: Callable[[Box], bool] = lambda box: box.trainable and not box.crowd, *, encoded: bool = False
) -> dict[int, Outline]:
    """The outline of each object that training sees, or of each that is one `of`, by its box's `number`.

    `encoded`: all as run-length encodings. ValueError where the split is not of a COCO file, or an object has no
    outline that can be read.
    """
    wanted = {box.number: image for image in split.images for box in image.boxes if of(box)}
    if -1 in wanted:
        raise Refusal(f"{split.source}: it has no outlines of objects, of which masks are learned; a COCO file may")
    annotations = read_json(split.source)["annotations"]
    found: dict[int, Outline] = {}
    without = []
    for number, image in wanted.items():
        annotation = annotations[number]
        try:
            outline = _outline(annotation, (image.height, image.width))
        except BadField as error:
            without.append(f"annotation {annotation.get('id', number)!r:.40}: {error}")
        else:
            found[number] = _encoded(outline, (image.height, image.width)) if encoded else outline
    if without:
        raise Refusal(
            f"{split.source}: {len(without)} of {len(wanted)} objects have no outline of which a mask could be learned,"
            f" such as {without[0]}"
        )
    return found


def any_encoded(outlines: Mapping[int, Outline]) -> bool:
    """Is one a run-length encoding? Detectron2 then wants all as bitmaps."""
    return any(isinstance(outline, dict) for outline in outlines.values())


def _outline(annotation: Mapping[str, object], size: tuple[int, int]) -> Outline:
    """BadField where `segmentation` is neither polygons nor a run-length encoding of the image's (height, width)."""
    encoding = annotation.get("segmentation")
    if not isinstance(encoding, dict):
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


def _encoded(outline: Outline, size: tuple[int, int]) -> Encoded:
    """The run-length encoding of an outline in an image of `size` (height, width)."""
    if isinstance(outline, dict):
        return outline
    encoded: Encoded = mask.merge(mask.frPyObjects([list(polygon) for polygon in outline], *size))
    return encoded
