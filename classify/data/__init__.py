"""Classification data sets by name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classify.data.digits import load_digits_set
from classify.data.images import SPLITS, Images, ImageSet, channel_mean_std


@dataclass(frozen=True)
class Splits:
    """The splits of a data set and the normalisation of its images (by channel, pixels in 0..1)."""

    train: Images
    val: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]


# A loader is called as load(split, root=..., seed=..., **options) and returns that split.
DATASETS: dict[str, Callable[..., ImageSet]] = {
    "digits": load_digits_set,
}


def load_dataset(name: str, split: str, *, root: Path | None = None, seed: int = 0, **options: Any) -> ImageSet:
    """The split "train", "val" or "test" of a data set of `DATASETS`.

    `root` is the directory of data sets that are read from disk. `seed` decides generated data and held-out
    splits; it is not the seed of a run, so that runs with different seeds compare on the same images.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    known = dataset_options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"data set {name!r} has no option {option!r}; choose from {', '.join(known)}")
    return DATASETS[name](split, root=root, seed=seed, **options)


def open_splits(name: str, *, root: Path | None = None, seed: int = 0, **options: Any) -> Splits:
    """All splits of a data set of `DATASETS`, normalised by the statistics of its training images."""
    train, val, test = (load_dataset(name, split, root=root, seed=seed, **options) for split in SPLITS)
    return Splits(train, val, test, *channel_mean_std(train.images))


def dataset_options(name: str) -> dict[str, Any]:
    """The options of a data set of `DATASETS` and their defaults."""
    parameters = inspect.signature(DATASETS[name]).parameters
    return {key: value.default for key, value in parameters.items() if key not in ("split", "root", "seed")}
