"""What can be wrong with a detection data set, and what becomes of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# refused: training does not start; dropped: training goes without the box, clipped: training cuts it at the edge;
# repaired: what the file lacks was taken from what it has; counted: it is used as it is
Effect = Literal["refused", "dropped", "clipped", "repaired", "counted"]


@dataclass(frozen=True)
class Kind:
    """`of`: what is counted. `fault` False: worth a number, but nothing to repair."""

    of: Literal["images", "boxes"]
    effect: Effect
    fault: bool = True


MISSING = "images missing"
UNREADABLE = "images not readable"
TOO_DEEP = "images of 32 bits a pixel"
DEEP = "images of 16 bits, of which the upper 8 are used"
NO_SIZE = "images without a size, taken from the file"
WRONG_SIZE = "images of another size than annotated"
TURNED = "images that EXIF turns, with a size that fits either way"
IMAGE_ID_TWICE = "image ids used twice"
FILE_TWICE = "images listed twice"
SAME_CONTENT = "images with the same content as another"
SHARED = "images that are in another split too"
NO_ANNOTATION = "annotation files missing"
NO_LABELS = "images without a label file, which have no objects then"
BAD_ANNOTATION = "annotation files not readable"
STRAY = "annotations of images that are not listed"
ANNOTATION_ID_TWICE = "annotation ids used twice"
MALFORMED = "annotations incomplete or not numbers"
UNKNOWN_CLASS = "boxes of an unknown class"
FROM_POLYGON = "boxes without a bbox, taken from the polygons"
BAD_AREA = "areas of 0 or less, taken from the box"
NORMALISED = "boxes that look normalised (fractions of the image, not pixels)"
MOSTLY_OVER = "boxes over the edge: most boxes reach over it (corners?)"
CORNERS = "boxes over the edge where all can be corners instead of sizes"
UNTRAINED = "boxes of a class that training has no box of"
INVERTED = "boxes inverted"
EMPTY = "boxes empty"
OUTSIDE = "boxes outside the image"
OVER_EDGE = "boxes over the edge by more than a pixel"
AT_EDGE = "boxes over the edge by at most a pixel"

KINDS: dict[str, Kind] = {
    MISSING: Kind("images", "refused"),
    UNREADABLE: Kind("images", "refused"),
    TOO_DEEP: Kind("images", "refused"),
    DEEP: Kind("images", "counted"),
    NO_SIZE: Kind("images", "repaired", fault=False),
    WRONG_SIZE: Kind("images", "refused"),
    TURNED: Kind("images", "counted"),
    IMAGE_ID_TWICE: Kind("images", "refused"),
    FILE_TWICE: Kind("images", "counted"),
    SAME_CONTENT: Kind("images", "counted"),
    SHARED: Kind("images", "refused"),  # unless detector.dataset.allow_shared
    NO_ANNOTATION: Kind("images", "refused"),
    NO_LABELS: Kind("images", "counted", fault=False),
    BAD_ANNOTATION: Kind("images", "refused"),
    STRAY: Kind("boxes", "refused"),
    ANNOTATION_ID_TWICE: Kind("boxes", "refused"),
    MALFORMED: Kind("boxes", "refused"),
    UNKNOWN_CLASS: Kind("boxes", "refused"),
    FROM_POLYGON: Kind("boxes", "repaired", fault=False),
    BAD_AREA: Kind("boxes", "repaired", fault=False),
    NORMALISED: Kind("boxes", "refused"),
    MOSTLY_OVER: Kind("boxes", "refused"),
    CORNERS: Kind("boxes", "refused"),
    UNTRAINED: Kind("boxes", "refused"),  # unless detector.dataset.voc.classes lists it
    INVERTED: Kind("boxes", "refused"),
    EMPTY: Kind("boxes", "dropped"),
    OUTSIDE: Kind("boxes", "dropped"),
    OVER_EDGE: Kind("boxes", "clipped"),
    AT_EDGE: Kind("boxes", "clipped", fault=False),
}


@dataclass(frozen=True)
class Problem:
    """One finding: a kind of KINDS, and the file, id and values that show it."""

    kind: str
    where: str


def by_kind(problems: Iterable[Problem]) -> dict[str, list[str]]:
    """Where each kind was found, kinds in the order of KINDS."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem.where)
    return {kind: found[kind] for kind in KINDS if kind in found}


def box_fault(corners: tuple[float, float, float, float], *, width: int, height: int, pixel: float = 0.0) -> str:
    """The kind of what is wrong with a box (left, top, right, bottom), edges of pixels at whole numbers; "" if nothing.

    `pixel`: the width that a box has whose annotated left and right are the same: 1 where they count pixels, as in
    VOC, 0 where they are positions. An image of unknown size (0) has no edge.
    """
    left, top, right, bottom = corners
    extents = right - left - pixel, bottom - top - pixel
    if min(extents) < 0:
        return INVERTED
    if min(extents) == 0:
        return EMPTY
    if not (width and height):
        return ""
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return OUTSIDE
    over = max(-left, -top, right - width, bottom - height)
    return OVER_EDGE if over > 1 else AT_EDGE if over > 0 else ""
