"""Backgrounds: square crops of scikit-learn's two photographs, from regions no two splits share."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from classify.data.images import check_split
from pruning.errors import Refusal

# Vertical bands (left, width) of the 640 columns. Edges are multiples of 16, the size of a JPEG macroblock,
# so no compressed block straddles two splits. The bands of the two photographs run in opposite directions,
# which gives every split both busy ground (pagoda, trees, petals) and plain (sky, water, blurred leaves).
PHOTO_HEIGHT, PHOTO_WIDTH = 427, 640
BANDS = {
    "china.jpg": {"train": (352, 288), "val": (192, 160), "test": (0, 192)},
    "flower.jpg": {"train": (0, 288), "val": (288, 160), "test": (448, 192)},
}
# Every split crops at the same scales; the narrowest band bounds them.
LARGEST_CROP = min(width for bands in BANDS.values() for _, width in bands.values())


@dataclass(frozen=True)
class PhotoCrop:
    """A square of `side` pixels of one photograph, mirrored left to right when `flipped`."""

    photo: str
    top: int
    left: int
    side: int
    flipped: bool


def photo_regions(split: str) -> list[tuple[str, int, int, int, int]]:
    """The (photograph, top, left, height, width) that `split` may use, in pixels; disjoint between splits."""
    check_split(split)
    return [(photo, 0, bands[split][0], PHOTO_HEIGHT, bands[split][1]) for photo, bands in BANDS.items()]


def draw_crop(split: str, image_size: int, rng: np.random.Generator) -> PhotoCrop:
    """A random crop inside the split's regions, at a zoom between 1 and 2 pixels of photograph per pixel.

    Images larger than half of `LARGEST_CROP` also enlarge the photograph, as it has no more pixels.
    """
    regions = photo_regions(split)
    photo, top, left, height, width = regions[rng.integers(len(regions))]
    smallest, largest = min(image_size, LARGEST_CROP // 2), min(2 * image_size, LARGEST_CROP)
    side = int(rng.integers(smallest, largest + 1))
    return PhotoCrop(
        photo=photo,
        top=top + int(rng.integers(height - side + 1)),
        left=left + int(rng.integers(width - side + 1)),
        side=side,
        flipped=bool(rng.integers(2)),
    )


def render_crop(crop: PhotoCrop, image_size: int) -> np.ndarray:
    """The crop resized to `image_size`: uint8, (H, W, 3), RGB. It reads no pixel outside the crop."""
    box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
    # Not resize(box=...): its filter also reads neighbours outside the box, perhaps another split's.
    square = _photographs()[crop.photo].crop(box)
    resized = np.asarray(square.resize((image_size, image_size), Image.Resampling.BICUBIC))
    return resized[:, ::-1] if crop.flipped else resized


@cache
def _photographs() -> dict[str, Image.Image]:
    from sklearn.datasets import load_sample_images  # here, since its import costs every other command a second

    bunch = load_sample_images()
    photographs = {Path(name).name: image for name, image in zip(bunch.filenames, bunch.images, strict=True)}
    for photo in BANDS:
        shape = photographs[photo].shape
        if shape != (PHOTO_HEIGHT, PHOTO_WIDTH, 3):
            raise Refusal(f"scikit-learn's {photo} has shape {shape}, expected (427, 640, 3)")
    return {photo: Image.fromarray(photographs[photo]) for photo in BANDS}
