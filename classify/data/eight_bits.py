"""Pictures in RGB of 8 bits a channel, whatever their files hold."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in RGB. Of 16 bits of grey the upper 8 are kept, as Pillow does with 16 bits of colour.

    Pillow itself would turn all grey above 255 white. ValueError for 32 bits a pixel, which have no common range.
    """
    if has_16_bits(image):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has 32 bits a pixel and no known range; convert it to 8 bits")
    return image.convert("RGB")


def has_16_bits(image: Image.Image) -> bool:
    """Is it grey of 16 bits a pixel?"""
    return image.mode.startswith("I;16")
