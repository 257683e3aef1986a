"""Handwritten digits on photographs: scikit-learn's 1,797 real scans on crops of its two photographs.

The splits share no scan and no pixel of a photograph, whatever the seed. Detection scenes (detect/scenes.py)
are built from the same parts, so a scan that trained a classifier never appears in a detection test scene.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from classify.data.images import SPLITS, ImageSet, channel_mean_std, check_split
from classify.data.photos import PhotoCrop, draw_crop, render_crop
from classify.data.splits import Location, Splits
from pruning.errors import Refusal

if TYPE_CHECKING:
    from sklearn.utils import Bunch

DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
SCAN_SIDE = 8  # cells; a cell holds 0 (paper) to 16 (ink)
# Shares of each class's scans; the test split takes what is left, about 25 %.
TRAIN_SHARE, VAL_SHARE = 0.60, 0.15
# Fixes which scan belongs to which split. Never a run's seed: every run must see the same splits.
SPLIT_SEED = 1797
# Side of the digit as a share of the image side, in classification.
SMALLEST_DIGIT, LARGEST_DIGIT = 0.55, 0.8
# Difference in luminance (0..255) between the ink and the mean of what it covers. At most 127, so that at
# least one of darker and lighter always exists.
LEAST_CONTRAST, MOST_CONTRAST = 90, 125
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 weights of R, G, B


@dataclass(frozen=True)
class DigitRecord:
    """Where one image comes from: its scan, its crop, and the square (in pixels) its digit was pasted on."""

    scan: int
    label: int
    crop: PhotoCrop
    top: int
    left: int
    side: int


@cache
def scan_indices(split: str) -> np.ndarray:
    """Ascending indices into `scans()` of one split: stratified, disjoint, the same in every run."""
    check_split(split)
    rng = np.random.default_rng(SPLIT_SEED)
    chosen = []
    for digit in range(10):
        scans = rng.permutation(np.flatnonzero(scan_labels() == digit))
        n_train, n_val = round(len(scans) * TRAIN_SHARE), round(len(scans) * VAL_SHARE)
        parts = np.split(scans, [n_train, n_train + n_val])
        chosen.append(parts[SPLITS.index(split)])
    return _read_only(np.sort(np.concatenate(chosen)))


@cache
def scan_labels() -> np.ndarray:
    """The digit, 0 to 9, of each of the 1,797 scans."""
    return _read_only(_embedded().target.astype(np.int64))


@cache
def scans() -> np.ndarray:
    """All scans: float32, (1797, 10, 10), ink from 0 to 1.

    The 8x8 cells have a margin of one cell of paper, so that enlarging cuts no stroke at the border.
    """
    ink = (_embedded().images / 16).astype(np.float32)
    return _read_only(np.pad(ink, [(0, 0), (1, 1), (1, 1)]))


def _embedded() -> "Bunch":
    """scikit-learn's data; imported here, since its import costs every other command a second."""
    from sklearn.datasets import load_digits

    return load_digits()


def random_stream(purpose: str, split: str, index: int, seed: int) -> np.random.Generator:
    """The random numbers of image `index`: other ones for another purpose, split, index or seed.

    One stream an image makes a smaller set the beginning of a larger one.
    """
    check_split(split)
    if seed < 0:
        raise Refusal(f"the data seed must be at least 0, got {seed}")
    return np.random.default_rng([seed, SPLITS.index(split), index, *purpose.encode()])


def patch_side(size: int) -> int:
    """Side in pixels of the patch of a digit of `size` pixels: its eight cells and the margin of paper."""
    return round(size * (SCAN_SIDE + 2) / SCAN_SIDE)


def digit_patch(scan: np.ndarray, size: int, *, level: float, softness: float) -> np.ndarray:
    """Opacity of the ink of one of `scans()` enlarged to `size` pixels: float32, 0 to 1, `patch_side` square.

    `level` is the ink at which opacity is one half: a low level gives thick strokes, a high one thin strokes.
    Opacity rises from 0 to 1 over `softness` of ink around it, which sharpens the blurred enlargement.
    """
    if not 0 < softness <= 2 * level:
        raise Refusal(f"softness={softness} is outside 0..{2 * level}: paper would not be transparent")
    side = patch_side(size)
    ink = np.asarray(Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC))
    return np.clip((ink - level) / softness + 0.5, 0, 1)


def random_digit_patch(scan: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`digit_patch` of scan number `scan` with random stroke width and softness."""
    level = rng.uniform(0.3, 0.55)
    return digit_patch(scans()[scan], size, level=level, softness=rng.uniform(0.3, min(0.8, 2 * level)))


def contrasting_colour(covered: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random ink colour, float32 (3,), visibly darker or lighter than the pixels it will cover.

    `covered` is uint8, (H, W, 3); `alpha`, (H, W), weighs its pixels.
    """
    weights = alpha.astype(np.float64).ravel()
    luminance = weights @ covered.reshape(-1, 3) @ LUMINANCE / weights.sum()
    contrast = rng.uniform(LEAST_CONTRAST, MOST_CONTRAST)
    feasible = [ink for ink in (luminance - contrast, luminance + contrast) if 0 <= ink <= 255]
    tint = rng.uniform(-60, 60, size=3)
    # Without its own luminance the tint changes the hue alone, up to clipping.
    return np.clip(feasible[rng.integers(len(feasible))] + tint - tint @ LUMINANCE, 0, 255).astype(np.float32)


def paste_digit(image: np.ndarray, alpha: np.ndarray, top: int, left: int, rng: np.random.Generator) -> np.ndarray:
    """A copy of `image`, uint8 (H, W, 3), with `alpha` blended in at (top, left) in a contrasting colour."""
    height, width = alpha.shape
    if top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise Refusal(f"a {height}x{width} patch at ({top}, {left}) leaves the {image.shape[:2]} image")
    window = slice(top, top + height), slice(left, left + width)
    covered = image[window]
    colour = contrasting_colour(covered, alpha, rng)
    pasted = image.copy()
    opacity = alpha[:, :, None]
    pasted[window] = covered + (colour - covered) * opacity + 0.5  # the conversion to uint8 rounds down
    return pasted


def digit_images(split: str, *, n_images: int, image_size: int, seed: int) -> Iterator[tuple[DigitRecord, np.ndarray]]:
    """Each image, uint8 (H, W, 3), with its record; classes take turns and are thus balanced."""
    if n_images < 1:
        raise Refusal(f"n_images must be at least 1, got {n_images}")
    if image_size < 16:
        raise Refusal(f"image_size must be at least 16 pixels for a digit to be legible, got {image_size}")
    available = scan_indices(split)
    by_label = [available[scan_labels()[available] == digit] for digit in range(10)]
    for index in range(n_images):
        rng = random_stream("classify", split, index, seed)
        label = index % 10
        scan = int(rng.choice(by_label[label]))
        yield _digit_image(scan, draw_crop(split, image_size, rng), image_size, rng)


def make_digits(split: str, *, n_images: int, image_size: int, seed: int) -> ImageSet:
    """`n_images` square images of one digit each; equal arguments give equal bytes."""
    images, labels = [], []
    for record, image in digit_images(split, n_images=n_images, image_size=image_size, seed=seed):
        images.append(torch.from_numpy(image).permute(2, 0, 1))  # (H, W, 3) -> (3, H, W)
        labels.append(record.label)
    return ImageSet(torch.stack(images), torch.tensor(labels), DIGIT_CLASSES)


@dataclass(frozen=True)
class DigitsOptions:
    """How large the images are, in pixels, and how many there are."""

    image_size: int = 64
    n_train: int = 4000
    n_val: int = 500
    n_test: int = 1000


def digits_splits(options: DigitsOptions, location: Location) -> Splits:
    """The embedded data set as the registry opens it; nothing is read from disk."""
    counts = {"train": options.n_train, "val": options.n_val, "test": options.n_test}
    made = {
        split: make_digits(split, n_images=n, image_size=options.image_size, seed=location.seed)
        for split, n in counts.items()
    }
    return Splits(made["train"], made["val"], made["test"], *channel_mean_std(made["train"].images))


def _digit_image(
    scan: int, crop: PhotoCrop, image_size: int, rng: np.random.Generator
) -> tuple[DigitRecord, np.ndarray]:
    smallest, largest = round(image_size * SMALLEST_DIGIT), round(image_size * LARGEST_DIGIT)
    alpha = random_digit_patch(scan, int(rng.integers(smallest, largest + 1)), rng)
    side = len(alpha)
    top, left = (int(start) for start in rng.integers(image_size - side + 1, size=2))
    image = paste_digit(render_crop(crop, image_size), alpha, top, left, rng)
    return DigitRecord(scan, int(scan_labels()[scan]), crop, top, left, side), image


def _read_only(array: np.ndarray) -> np.ndarray:
    """The array itself, protected: cached arrays are shared by every caller."""
    array.flags.writeable = False
    return array
