"""Detection scenes: several handwritten digits on a crop of a photograph, written as PNG and COCO JSON.

Scans, photographs and their splits are those of classify/data, so no scan or photograph region of one split
appears in another, nor does a scan that trained a classifier appear in a test scene.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from classify.data.digits import (
    DIGIT_CLASSES,
    paste_digit,
    patch_side,
    random_digit_patch,
    random_stream,
    scan_indices,
    scan_labels,
)
from classify.data.images import check_split
from classify.data.photos import PhotoCrop, draw_crop, render_crop
from pruning.errors import Refusal
from training.files import write_bytes, write_text

# Raise it whenever the same options begin to give other pixels or boxes.
FORMAT = 1
MANIFEST = "manifest.json"
_AT_WORK = ".lock"  # held by whoever writes the folder; it goes with it where it is published
# Ink less opaque than this is hard to see, and is left out of the boxes.
VISIBLE_OPACITY = 0.3
# Largest shared area of two boxes, as a share of the smaller one. It implies an IoU below 0.1.
MOST_OVERLAP = 0.15
PLACEMENT_ATTEMPTS = 200


@dataclass(frozen=True)
class SceneOptions:
    """What defines the scenes, bytes and all. Ranges are inclusive; sizes are in pixels."""

    image_size: int
    images: Mapping[str, int]  # number of scenes by split
    digits_per_scene: tuple[int, int]
    digit_size: tuple[int, int]
    seed: int

    def __post_init__(self) -> None:
        for split, count in self.images.items():
            check_split(split)
            if count < 1:
                raise Refusal(f"images: {split} must have at least 1 scene, got {count}")
        _check_range("digits_per_scene", self.digits_per_scene, at_least=1)
        _check_range("digit_size", self.digit_size, at_least=8)
        if patch_side(self.digit_size[1]) > self.image_size:
            raise Refusal(f"digit_size {self.digit_size[1]} does not fit in image_size {self.image_size}")

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with every option and with `FORMAT`."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, object]:
        """The options and `FORMAT` as JSON types."""
        return {"format": FORMAT, **asdict(self), "images": dict(self.images)}


@dataclass(frozen=True)
class PlacedDigit:
    """A digit of a scene; `box` is (x, y, width, height) in pixels, tight around its visible ink."""

    scan: int
    label: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """An image, uint8 (H, W, 3), RGB, with what it was made from."""

    image: np.ndarray
    crop: PhotoCrop
    digits: tuple[PlacedDigit, ...]


@dataclass(frozen=True)
class SceneSplit:
    """Where one split lies on disk, as Detectron2's COCO loader wants it."""

    image_dir: Path
    annotations: Path


def write_scenes(
    root: Path,
    *,
    images: Mapping[str, int],
    image_size: int = 128,
    digits_per_scene: tuple[int, int] = (2, 6),
    digit_size: tuple[int, int] = (16, 44),
    seed: int = 0,
) -> dict[str, SceneSplit]:
    """The scenes of each split of `images`, written below `root` unless they are there already.

    The directory's name is a hash of the options. It appears in one step, complete: a process that is killed
    leaves only a hidden temporary directory that nobody reads and the next call removes, and of two processes the
    first one wins.
    """
    options = SceneOptions(image_size, images, digits_per_scene, digit_size, seed)
    final = root / f"digits-{options.fingerprint()}"
    _remove_remains(final)
    if not (final / MANIFEST).is_file():
        _write_once(final, options)
    return {split: SceneSplit(final / split, final / f"{split}.json") for split in options.images}


def scenes(split: str, options: SceneOptions) -> Iterator[Scene]:
    """The scenes of one split, in order; the first of a larger set are those of a smaller one."""
    for index in range(options.images[split]):
        rng = random_stream("detect", split, index, options.seed)
        crop = draw_crop(split, options.image_size, rng)
        image = render_crop(crop, options.image_size)
        digits: list[PlacedDigit] = []
        for _ in range(rng.integers(options.digits_per_scene[0], options.digits_per_scene[1] + 1)):
            image, digit = _add_digit(image, digits, split, options, rng)
            digits.append(digit)
        yield Scene(image, crop, tuple(digits))


def visible_box(alpha: np.ndarray, top: int, left: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the visible pixels of a patch, `alpha` (H, W), pasted at (top, left)."""
    rows, columns = np.nonzero(alpha > VISIBLE_OPACITY)
    if len(rows) == 0:
        raise Refusal(f"no pixel of the patch is more opaque than {VISIBLE_OPACITY}")
    x, y = int(columns.min()), int(rows.min())
    return left + x, top + y, int(columns.max()) - x + 1, int(rows.max()) - y + 1


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Area shared by two (x, y, width, height) boxes as a share of the smaller box's area."""
    spans = []
    for axis in (0, 1):
        start = max(first[axis], second[axis])
        end = min(first[axis] + first[axis + 2], second[axis] + second[axis + 2])
        spans.append(max(0, end - start))
    return spans[0] * spans[1] / min(first[2] * first[3], second[2] * second[3])


def coco_json(digits_by_image: list[tuple[PlacedDigit, ...]], image_size: int) -> dict[str, object]:
    """COCO "instances" of images 00000.png, 00001.png, ...; category k + 1 is digit k.

    Image and annotation ids start at 1: evaluators take an annotation id of 0 for "no match".
    `area` is the box's, as there are no segmentation masks.
    """
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index, digits in enumerate(digits_by_image):
        size = {"width": image_size, "height": image_size}
        images.append({"id": index + 1, "file_name": _file_name(index), **size})
        for digit in digits:
            annotation = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": digit.label + 1}
            bbox, area = [float(value) for value in digit.box], float(digit.box[2] * digit.box[3])
            annotations.append({**annotation, "bbox": bbox, "area": area, "iscrowd": 0})
    return {
        "info": {"description": "scikit-learn's handwritten digits on its sample photographs"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": digit + 1, "name": name} for digit, name in enumerate(DIGIT_CLASSES)],
    }


def _add_digit(
    image: np.ndarray, digits: list[PlacedDigit], split: str, options: SceneOptions, rng: np.random.Generator
) -> tuple[np.ndarray, PlacedDigit]:
    """The image with one more digit, drawn anew until it overlaps little with the others."""
    for _ in range(PLACEMENT_ATTEMPTS):
        scan = int(rng.choice(scan_indices(split)))
        alpha = random_digit_patch(scan, int(rng.integers(options.digit_size[0], options.digit_size[1] + 1)), rng)
        top, left = (int(start) for start in rng.integers(options.image_size - len(alpha) + 1, size=2))
        box = visible_box(alpha, top, left)
        if all(overlap(box, other.box) <= MOST_OVERLAP for other in digits):
            return paste_digit(image, alpha, top, left, rng), PlacedDigit(scan, int(scan_labels()[scan]), box)
    raise Refusal(
        f"no room for digit {len(digits) + 1} of digit_size {options.digit_size} in a scene of image_size "
        f"{options.image_size}; lower digits_per_scene or digit_size, or raise image_size"
    )


def _write_once(final: Path, options: SceneOptions) -> None:
    if (final / MANIFEST).is_file():  # another process was faster
        return
    if final.exists():
        raise Refusal(f"{final} has no {MANIFEST}, so it is incomplete: remove it and start again")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.parent / f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}"
    partial.mkdir()
    with FileLock(partial / _AT_WORK):
        try:
            for split in options.images:
                _write_split(partial, split, options)
            write_text(partial / MANIFEST, json.dumps(options.as_json(), indent=2), flush=False)
            os.sync()  # once: a thousand files synced one by one take longer than they take to draw
            _publish(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _remove_remains(final: Path) -> None:
    """Remove what killed processes left of these scenes: the folders in which nobody is at work."""
    for left in final.parent.glob(f".{final.name}.*"):
        if (left / _AT_WORK).is_file():  # one that begins has none yet
            with suppress(Timeout, OSError), FileLock(left / _AT_WORK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _write_split(directory: Path, split: str, options: SceneOptions) -> None:
    image_dir = directory / split
    image_dir.mkdir(parents=True)
    digits_by_image = []
    for index, scene in enumerate(scenes(split, options)):
        png = io.BytesIO()
        # Compressing takes half of the time at the default level, for files hardly smaller.
        Image.fromarray(scene.image).save(png, format="PNG", compress_level=1)
        write_bytes(image_dir / _file_name(index), png.getvalue(), flush=False)
        digits_by_image.append(scene.digits)
    coco = coco_json(digits_by_image, options.image_size)
    write_text(directory / f"{split}.json", json.dumps(coco), flush=False)


def _publish(partial: Path, final: Path) -> None:
    """Rename `partial` to `final`, unless another process has published the same scenes meanwhile."""
    try:
        # os.replace refuses a directory that is not empty, and a published one never is.
        partial.replace(final)
    except OSError:
        if not (final / MANIFEST).is_file():
            raise


def _file_name(index: int) -> str:
    return f"{index:05d}.png"


def _check_range(name: str, bounds: tuple[int, int], *, at_least: int) -> None:
    if len(bounds) != 2 or not at_least <= bounds[0] <= bounds[1]:
        raise Refusal(f"{name} must be (low, high) with {at_least} <= low <= high, got {bounds}")
