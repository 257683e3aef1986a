"""The fields of COCO's JSON, one function each: what a value means, or a sentence with the key and the value."""

import math
from collections.abc import Mapping

from pruning.errors import Refusal

XYWH = tuple[float, float, float, float]

_CROWD: dict[object, bool] = {None: False, 0: False, 1: True, "0": False, "1": True, "": False}


class BadField(Refusal):
    """A field that cannot be read; its text names the key and the value."""


def as_id(entry: Mapping[str, object], key: str) -> int | str:
    """An id as it is compared: 3, 3.0 and "3" are one, any other text is itself."""
    value = entry.get(key)
    if type(value) is int:  # a truth value is none
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        plain = digits.isascii() and digits.isdigit() and len(digits) < 20 and str(int(text)) == text
        return int(text) if plain else value
    raise BadField(f"{key} {_shown(entry, key)} is no id")


def as_size(entry: Mapping[str, object], key: str) -> int:
    """Pixels of a side, 64.0 and "64" included; 0 where the file does not say."""
    value = entry.get(key)
    if value is None:
        return 0
    size = _number(value, text=True)
    if size is None or size < 0 or not size.is_integer():
        raise BadField(f"{key} {_shown(entry, key)} is no number of pixels")
    return int(size)


def as_xywh(annotation: Mapping[str, object]) -> tuple[XYWH, bool]:
    """The box, and whether it had to be taken from the polygons of `segmentation`, as there is no `bbox`."""
    bbox = annotation.get("bbox")
    if bbox is None or bbox == []:
        return _around(annotation), True
    if not isinstance(bbox, list) or len(bbox) != 4 or any(_number(v) is None for v in bbox):
        raise BadField(f"bbox {_shown(annotation, 'bbox')} is not four finite numbers")
    x, y, w, h = bbox
    return (x, y, w, h), False


def as_area(annotation: Mapping[str, object], xywh: XYWH) -> tuple[float, bool]:
    """Square pixels, and whether they had to be taken from a box that has some where the file has none."""
    from_box = xywh[2] * xywh[3]
    if "area" not in annotation:
        return from_box, False
    value = annotation["area"]
    area = 0.0 if value is None else _number(value)
    if area is None:
        raise BadField(f"area {_shown(annotation, 'area')} is not a finite number")
    if area > 0 or min(xywh[2:]) <= 0:
        return (value if isinstance(value, int | float) else 0.0), False
    return from_box, True


def as_crowd(annotation: Mapping[str, object]) -> bool:
    """`iscrowd`: 0, 1, a truth value, one of them as a text, or nothing."""
    value = annotation.get("iscrowd")
    if isinstance(value, list | dict) or value not in _CROWD:
        raise BadField(f"iscrowd {_shown(annotation, 'iscrowd')} is neither 0 nor 1")
    return _CROWD[value]


def as_text(entry: Mapping[str, object], key: str) -> str:
    """A name; whole numbers are names as well."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise BadField(f"{key} {_shown(entry, key)} is no name")
    return str(value)


def _around(annotation: Mapping[str, object]) -> XYWH:
    """The smallest box around all polygons [[x1, y1, x2, y2, ...], ...]."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        shown = _shown(annotation, "segmentation")
        raise BadField(f"bbox {_shown(annotation, 'bbox')}, and no polygons to take it from: segmentation {shown}")
    numbers: list[float] = []
    for polygon in polygons:
        points = _polygon(polygon)
        if not points:
            raise BadField(f"bbox is missing, and segmentation {polygon!r:.60} is no polygon of finite numbers")
        numbers += points
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def as_polygons(annotation: Mapping[str, object]) -> list[list[float]]:
    """The polygons of `segmentation`, each x, y, x, y, ...; those of less than three points are left out."""
    polygons = annotation.get("segmentation")
    found = [_polygon(polygon) for polygon in polygons] if isinstance(polygons, list) else []
    if not any(found):
        raise BadField(f"segmentation {_shown(annotation, 'segmentation')} has no polygon")
    return [polygon for polygon in found if polygon]


def _polygon(value: object) -> list[float]:
    """The coordinates of at least three points; none where they are not finite numbers in pairs."""
    numbers = [_number(v) for v in value] if isinstance(value, list) else []
    finite = [v for v in numbers if v is not None]
    return finite if len(finite) == len(numbers) >= 6 and len(finite) % 2 == 0 else []


def _number(value: object, *, text: bool = False) -> float | None:
    """`value` as a finite float, or None; a truth value is no number."""
    kind = type(value)
    if kind is not float and kind is not int and not (text and kind is str):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _shown(entry: Mapping[str, object], key: str) -> str:
    return f"{entry[key]!r:.60}" if key in entry else "(missing)"
