"""One image file as a network reads it: its centre, or a random part of it for training."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from classify.data.image_files import ImageFiles
from pruning.errors import Refusal


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in RGB. Of 16 bits of grey the upper 8 are kept, as Pillow does with 16 bits of colour.

    Pillow itself would turn all grey above 255 white. ValueError for 32 bits a pixel, which have no common range.
    """
    if has_16_bits(image.mode):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise Refusal(f"mode {image.mode} has 32 bits a pixel and no known range; convert it to 8 bits")
    return image.convert("RGB")


def has_16_bits(mode: str) -> bool:
    """Is this mode of Pillow's grey of 16 bits a pixel?"""
    return mode.startswith("I;16")


# What damaged files make Pillow and zipfile raise; Pillow's own error for files it does not know is an OSError
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    BadZipFile,
    Image.DecompressionBombError,
)
_SMALLEST_CROPPED = 128
# A JPEG may be decoded at a half, a quarter or an eighth of its size while it keeps twice the pixels that are wanted:
# the gap that Pillow's own thumbnails keep, where the difference is no longer seen
_GAP = 2
T = TypeVar("T")


class BrokenImage(Refusal):
    """A file that cannot be read as an image."""


@dataclass(frozen=True)
class Crop:
    """The part of an image that is kept, in pixels: `size` x `size` after its shorter side became `resize`."""

    size: int
    resize: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.resize < self.size:
            raise Refusal(f"resize={self.resize} must be at least image_size={self.size}, and both at least 1 pixel")

    @classmethod
    def of(cls, size: int, resize: int | None = None) -> "Crop":
        """ImageNet's test images are resized to 256 before 224 are cut out; small images are used whole."""
        if resize is None:
            resize = round(size * 256 / 224) if size >= _SMALLEST_CROPPED else size
        return cls(size, resize)


def read_image(files: ImageFiles, name: str, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of the image `name`; BrokenImage with the reason where it cannot be read."""
    try:
        with files.open(name) as content, Image.open(content) as image:
            return use(image)
    except FileNotFoundError as error:
        raise BrokenImage("missing") from error
    except _DAMAGE as error:
        raise BrokenImage("no image of a known format" if "identify" in str(error) else str(error)) from error


def centre(image: Image.Image, crop: Crop) -> Tensor:
    """The image as it is evaluated, uint8 (3, size, size): resized, its centre cut out."""
    image.draft(None, (_GAP * crop.resize, _GAP * crop.resize))
    resized = F.resize(to_rgb(image), [crop.resize])
    return _tensor(F.center_crop(resized, [crop.size, crop.size]))


def random_part(image: Image.Image, size: int, seed: int) -> Tensor:
    """A random 8 to 100 % of the image, mirrored half of the time, uint8 (3, size, size); follows from `seed` alone.

    Szegedy et al., 2015, section 6; the random numbers are torchvision's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
        top, left, height, width = RandomResizedCrop.get_params(image, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
        mirrored = bool(torch.rand(()) < 0.5)
    before = image.size
    image.draft(None, (_GAP * size * before[0] // width, _GAP * size * before[1] // height))
    x, y = image.size[0] / before[0], image.size[1] / before[1]
    box = (left * x, top * y, min((left + width) * x, image.size[0]), min((top + height) * y, image.size[1]))
    part = to_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return _tensor(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part)


def _tensor(image: Image.Image) -> Tensor:
    """RGB -> uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
