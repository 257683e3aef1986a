"""Which file is of which split and class: `class/image`, or `train/class/image` with `val` and `test` beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classify.data.image_files import SUFFIXES, ImageList, Listing, parent_of
from classify.data.images import SPLITS
from pruning.errors import Refusal


@dataclass(frozen=True)
class Labelled:
    """Image files and the indices of their classes, int64, (N,)."""

    files: ImageList
    labels: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, index: Sequence[int] | Tensor) -> "Labelled":
        """The files `index` alone."""
        chosen = torch.as_tensor(index, dtype=torch.int64)
        return Labelled(self.files.take(chosen.numpy()), self.labels[chosen])


@dataclass(frozen=True)
class Layout:
    """The classes, in alphabetical order, and the files of each split that is on disk; one of them is "train"."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, Labelled]

    def with_split(self, split: str, files: Labelled) -> "Layout":
        """The same with other files in one split."""
        return replace(self, splits={**self.splits, split: files})


def read_layout(root: Path, listing: Listing) -> Layout:
    """Sort the files of `root`, a folder or a zip, into splits and classes.

    A single folder around everything, as zips often have it, does not count. ValueError for any other arrangement,
    a class without images, and a class that is in one split and not in another.
    """
    _check_folders(root, listing)
    numbers, first = np.unique(listing.parents, return_index=True)
    folders = {n: listing.folders[n] for n in numbers[first.argsort()].tolist()}  # those with images, in their order
    paths = {number: folder.split("/") if folder else [] for number, folder in folders.items()}
    outer = _outer(list(paths.values()))
    of_split: dict[str, dict[str, int]] = {}  # split -> class -> number of its folder
    for number, parts in paths.items():
        inner = parts[outer:]
        if len(inner) == 2 and inner[0] in SPLITS:
            split, name = inner[0], inner[1]
        elif len(inner) == 1 and inner[0] not in SPLITS:
            split, name = "", inner[0]
        else:
            image = listing.files[int(np.argmax(listing.parents == number))]
            raise Refusal(f"{root}: {image.name} is neither class/image nor train/class/image (or val, or test)")
        of_split.setdefault(split, {})[name] = number
    return _layout(root, listing, of_split)


def check_classes(layout: Layout) -> None:
    """ValueError for a single class."""
    if len(layout.classes) < 2:
        raise Refusal(f"{layout.root}: one class only, {layout.classes[0]}; there is nothing to tell it from")


def _layout(root: Path, listing: Listing, of_split: dict[str, dict[str, int]]) -> Layout:
    if "" in of_split and len(of_split) > 1:
        raise Refusal(f"{root}: has folders of classes beside {', '.join(sorted(of_split.keys() - {''}))}")
    if "" in of_split:
        of_split = {"train": of_split[""]}
    if "train" not in of_split:
        raise Refusal(f"{root}: has {', '.join(sorted(of_split))} and no train")
    classes = tuple(sorted(of_split["train"]))
    for split, found in of_split.items():
        missing, more = sorted(set(classes) - found.keys()), sorted(found.keys() - set(classes))
        if missing:
            raise Refusal(f"{root}: in train but not in {split}: {_some(missing)}")
        if more:
            raise Refusal(f"{root}: in {split} but not in train: {_some(more)}")
    splits = {}
    for split, found in of_split.items():
        label = np.full(len(listing.folders), -1)  # by number of a folder
        label[[found[name] for name in classes]] = np.arange(len(classes))
        labels = label[listing.parents]
        index = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]  # of a class in alphabetical order
        splits[split] = Labelled(listing.files.take(index), torch.from_numpy(labels[index]))
    return Layout(root, classes, splits)


def _check_folders(root: Path, listing: Listing) -> None:
    """ValueError for a folder with nothing of use in it."""
    parents = {parent_of(name) for name in listing.folders}
    parents |= {listing.folders[number] for number in np.unique(listing.parents)}
    for name in sorted(listing.folders):
        if name and name not in parents:
            raise Refusal(f"{root / name}: no image in it; files read are {', '.join(SUFFIXES)}")
    if not len(listing.files):
        raise Refusal(f"{root}: no image in it; images are expected as class/image.png or train/class/image.png")


def _outer(paths: list[list[str]]) -> int:
    """How many of the folders `paths` are around everything: shared by all images, no split, and with class folders
    inside."""
    first = paths[0]
    outer = 0
    while (
        min(len(parts) for parts in paths) - outer >= 2
        and first[outer] not in SPLITS
        and all(parts[outer] == first[outer] for parts in paths)
    ):
        outer += 1
    return outer


def _some(names: list[str]) -> str:
    """How many classes `names` are, and the first few."""
    return f"{len(names)} class{'es' * (len(names) > 1)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
