"""Labelled images in memory, and the statistics that normalise them."""

from dataclasses import dataclass

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")


def check_split(split: str) -> None:
    """Raise ValueError for anything but "train", "val" and "test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")


@dataclass(frozen=True)
class ImageSet:
    """One split of a classification data set.

    `images` is uint8, (N, 3, H, W), RGB; `labels` is int64, (N,), indices into `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_images(self.images)
        shape, dtype = tuple(self.labels.shape), self.labels.dtype
        if dtype != torch.int64 or shape != (len(self.images),):
            raise ValueError(f"labels must be int64 ({len(self.images)},), got {dtype} {shape}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels span {low}..{high}, outside 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.images)


def channel_mean_std(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and population standard deviation of R, G and B over all pixels, in units of 0..1.

    `images` is uint8, (N, 3, H, W). A uint8 channel has 256 values, so its histogram gives both
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
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def balanced_indices(labels: Tensor, n_images: int) -> Tensor:
    """Indices (at most `n_images`,) of the first images of each class, as many of each as there are.

    The classes take turns, so that counts differ by one at most while no class runs out.
    """
    if n_images < 1:
        raise ValueError(f"n_images={n_images} must be at least 1")
    turn = torch.zeros_like(labels)  # how many images of its class come before each
    for label in labels.unique():
        of_class = labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    return (turn * (int(labels.max()) + 1) + labels).argsort()[:n_images]


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images must not be empty, got shape {tuple(images.shape)}")
