"""Labelled images: what every data set offers to training and evaluation, images in memory, their statistics."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from classify.data.augment import augmentation
from pruning.errors import Refusal

SPLITS = ("train", "val", "test")


def check_split(split: str) -> None:
    """Raise ValueError for anything but "train", "val" and "test"."""
    if split not in SPLITS:
        raise Refusal(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Batch:
    """One batch to make: the images `index` (n,), augmented by random numbers that follow from `key` alone.

    Of the augmented images this process takes `part`: processes that train together share a batch.
    """

    index: Tensor
    key: tuple[int, ...]
    part: slice = field(default_factory=lambda: slice(None))

    def generator(self) -> Generator:
        """The random numbers of the whole batch, the same in every process."""
        return stream(*self.key)


class Images(Protocol):
    """One split of a classification data set, in memory or on disk."""

    @property
    def labels(self) -> Tensor:
        """int64, (N,), indices into `classes`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as a network reads it."""
        ...

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Tensor:
        """The images `index` (n,) as they are evaluated, without augmentation: uint8, (n, C, H, W)."""
        ...

    def batches(self, plan: Iterable[Batch], augment: str) -> Iterator[tuple[Tensor, Tensor]]:
        """For each planned batch this process's part of it: images as uint8 (n, C, H, W), labels (n,)."""
        ...

    def subset(self, index: Tensor) -> "Images":
        """The images `index` (n,) alone."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of the images and their labels, or of what their files are called and weigh: 64 digits."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """One split in memory.

    `images` is uint8, (N, C, H, W), RGB or grey; `labels` is int64, (N,), indices into `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_images(self.images)
        shape, dtype = tuple(self.labels.shape), self.labels.dtype
        if dtype != torch.int64 or shape != (len(self.images),):
            raise Refusal(f"labels must be int64 ({len(self.images)},), got {dtype} {shape}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise Refusal(f"labels span {low}..{high}, outside 0..{len(self.classes) - 1}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> Tensor:
        """The images `index`, as they are."""
        return self.images[index]

    def batches(self, plan: Iterable[Batch], augment: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each planned batch, augmented as a whole."""
        recipe = augmentation(augment)
        for batch in plan:
            images = recipe(self.images[batch.index], batch.generator())
            yield images[batch.part], self.labels[batch.index][batch.part]

    def subset(self, index: Tensor) -> "ImageSet":
        """The images `index` (n,) alone."""
        return ImageSet(self.images[index], self.labels[index], self.classes)

    def fingerprint(self) -> str:
        """SHA-256 of the shape, the classes, the labels and every pixel."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.labels.contiguous().numpy().data)
        digest.update(self.images.contiguous().numpy().data)
        return digest.hexdigest()


def stream(*key: int) -> Generator:
    """Random numbers that follow from the key alone."""
    return Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def channel_mean_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel over all pixels, in units of 0..1.

    `images` is uint8, (N, C, H, W). A uint8 channel has 256 values, so its histogram gives both
    exactly, in one pass and without a float copy of the images.
    """
    _check_images(images)
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
        share = counts / counts.sum()
        mean = float((share * levels).sum())
        means.append(mean)
        stds.append(float((share * (levels - mean) ** 2).sum().sqrt()))
    return tuple(means), tuple(stds)


def balanced_indices(labels: Tensor, n_images: int) -> Tensor:
    """Indices (at most `n_images`,) of the first images of each class, as many of each as there are.

    The classes take turns, so that counts differ by one at most while no class runs out.
    """
    if n_images < 1:
        raise Refusal(f"n_images={n_images} must be at least 1")
    turn = torch.zeros_like(labels)  # how many images of its class come before each
    for label in labels.unique():
        of_class = labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    return (turn * (int(labels.max()) + 1) + labels).argsort()[:n_images]


def at_most_of_each(labels: Tensor, per_class: int) -> int:
    """How many images are left of these class indices (N,) with no more than `per_class` of each class."""
    return int(labels.bincount().clamp(max=per_class).sum())


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise Refusal(f"images must be uint8 (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if images.numel() == 0:
        raise Refusal(f"images must not be empty, got shape {tuple(images.shape)}")
