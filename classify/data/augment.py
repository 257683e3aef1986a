"""Augmentation of whole uint8 batches: pure functions of the images and a generator.

Working on batches instead of single images through PIL is what keeps small networks from waiting for data.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from pruning.errors import Refusal

Augmentation = Callable[[Tensor, Generator], Tensor]


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Each image of (N, C, H, W) moved by its own shift of -padding..padding pixels, black where it leaves.

    The same as padding with zeros and cropping at random to the old size.
    """
    if padding < 0:
        raise Refusal(f"padding must be at least 0 pixels, got {padding}")
    n, channels, height, width = images.shape
    tops, lefts = torch.randint(2 * padding + 1, (2, n, 1, 1), generator=generator).to(images.device)
    rows = tops + torch.arange(height, device=images.device)[:, None]
    columns = lefts + torch.arange(width, device=images.device)
    # Positions in a padded, flattened plane: (N, H, W) -> (N, C, H * W); one gather moves the whole batch.
    positions = (rows * (width + 2 * padding) + columns).flatten(1)[:, None].expand(-1, channels, -1)
    return F.pad(images, [padding] * 4).flatten(2).gather(2, positions).view(images.shape)


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image of (N, C, H, W) mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def _none(images: Tensor, generator: Generator) -> Tensor:
    return images


def _shift(images: Tensor, generator: Generator) -> Tensor:
    return random_crop(images, 4, generator)


def _cifar(images: Tensor, generator: Generator) -> Tensor:
    return random_flip(random_crop(images, 4, generator), generator)


RECIPES: dict[str, Augmentation] = {
    "none": _none,
    "shift": _shift,  # no flip: a mirrored digit is another shape, or another digit
    "cifar": _cifar,  # He et al., 2016, section 4.2: pad 4, crop, flip
}
WHILE_DECODING = "imagenet"  # a random part of the whole photograph, enlarged, and a flip: classify/data/decode.py
AUGMENTATIONS = (*RECIPES, WHILE_DECODING)


def augmentation(name: str) -> Augmentation:
    """The recipe of that name in `RECIPES`, for images that are in memory as the network reads them."""
    if name == WHILE_DECODING:
        raise Refusal(
            f"augmentation {name!r} cuts its part out of an image file, and these images are in memory;"
            f" choose from {', '.join(RECIPES)}, or in_memory: false for a folder"
        )
    if name not in RECIPES:
        raise Refusal(f"unknown augmentation {name!r}; choose from {', '.join(AUGMENTATIONS)}")
    return RECIPES[name]


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, C, H, W) -> float32 (pixel - mean) / std, with `mean` and `std` of pixels in 0..1."""
    if images.dtype != torch.uint8:
        raise Refusal(f"images must be uint8, got {images.dtype}")
    if min(std) <= 0:
        raise Refusal(f"every std must be above 0, got {tuple(std)}")
    # In units of 0..255, so that the batch is read once, without a division by 255 of its own.
    offset, scale = (_of_pixels(tuple(values), images.device) for values in (mean, std))
    return (images.to(torch.float32) - offset) / scale


@cache  # made anew each time, they would have the CPU wait for a GPU twice a step
def _of_pixels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value a channel, (C, 1, 1), in units of 0..255."""
    with torch.inference_mode(False):  # it may be an evaluation that asks first
        return torch.tensor(values, device=device).view(-1, 1, 1) * 255
