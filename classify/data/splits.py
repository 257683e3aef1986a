"""The splits of a data set: held out evenly over the classes, identified by what is in them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classify.data.images import Images, ImageSet
from pruning.errors import Refusal


@dataclass(frozen=True)
class Location:
    """Where data sets are read: the folder they are in, the seed of what is drawn, the processes that decode, and the
    folder that remembers which files were checked.

    `seed` decides generated data and held-out splits. It is not the seed of a run, so that runs with different
    seeds compare on the same images.
    """

    root: Path
    seed: int = 0
    workers: int = 0
    memory: Path | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise Refusal(f"the data seed must be at least 0, got {self.seed}")
        if self.workers < 0:
            raise Refusal(f"workers={self.workers} must be at least 0")


@dataclass(frozen=True)
class Splits:
    """The splits of a data set and the normalisation of its images (by channel, pixels in 0..1).

    No split is empty. `notes` says in sentences what of the files found was not used, and why.
    """

    train: Images
    val: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the three splits: pixels in memory; names, sizes and labels of files."""
        parts = [split.fingerprint() for split in (self.train, self.val, self.test)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def memory_splits(
    train: ImageSet,
    test: ImageSet,
    *,
    val: float,
    seed: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    notes: tuple[str, ...] = (),
) -> Splits:
    """Splits of images in memory, the validation split held out of `train` as `held_out` says."""
    kept, held = held_out(train.labels, val, seed=seed, split="val")
    return Splits(train.subset(kept), train.subset(held), test, mean, std, notes)


def held_out(labels: Tensor, amount: float, *, seed: int, split: str) -> tuple[Tensor, Tensor]:
    """Ascending indices (kept, held out) of `labels` (N,): each class gives its share, drawn by `seed`.

    `amount` is a fraction below 1 or a number of images; `split` names what is held out, and other names draw
    other images. ValueError where nothing would be held out, or a class would keep nothing.
    """
    counts = torch.bincount(labels).numpy()
    n_held = _shares(counts, _number(amount, len(labels), split))
    if empty := np.flatnonzero((n_held == counts) & (counts > 0)).tolist():
        first = empty[0]
        raise Refusal(
            f"{split}={amount:g} takes all {counts[first]} images of class number {first}; leave some to train"
        )
    rng = np.random.default_rng([seed, *split.encode()])
    held = np.zeros(len(labels), dtype=bool)
    for label, n in enumerate(n_held):
        held[rng.permutation(np.flatnonzero(labels.numpy() == label))[:n]] = True
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def _number(amount: float, total: int, split: str) -> int:
    """How many of `total` images `amount` asks for."""
    number = round(amount * total) if amount < 1 else int(amount)
    if amount <= 0 or (amount >= 1 and number != amount):
        raise Refusal(f"{split}={amount:g} must be a fraction between 0 and 1, or a whole number of images from 1")
    if not 1 <= number < total:
        raise Refusal(f"{split}={amount:g} of {total} images is {number}; it must be from 1 to {total - 1}")
    return number


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Parts of `counts` that sum to `total`, as equal in proportion as whole numbers can be; ties to the first."""
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(int)
    largest = np.argsort(shares - exact, kind="stable")[: total - shares.sum()]
    shares[largest] += 1
    return shares
