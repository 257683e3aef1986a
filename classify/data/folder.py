"""Any folder of images with one folder per class, or a zip of one: in memory if it is small, read as it goes if not."""

from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch

from classify.data.check_files import Check, Opening, decode_all, open_layout, report_broken, report_ignored
from classify.data.content import Pieces
from classify.data.decode import Crop
from classify.data.image_files import ImageFiles, open_files
from classify.data.images import SPLITS, ImageSet, at_most_of_each, balanced_indices, channel_mean_std
from classify.data.layout import Labelled, Layout, check_classes, read_layout
from classify.data.splits import Location, Splits, held_out
from pruning.errors import Refusal

_MEMORY = 1 << 30  # bytes of all splits together that "auto" still holds in memory
_MEASURED = 2000  # training images from which mean and standard deviation are taken
_DEFAULT = {"test": 0.2, "val": 0.1}


@dataclass(frozen=True)
class FolderOptions:
    """A folder or .zip `path` below the data folder, of `class/image` or `train/class/image` (and val, test).

    `image_size`, `resize`: pixels, see classify.data.decode.Crop. `per_class`: at most so many images of each class,
    except of a test split that is on disk. `val`, `test`: fraction or number of images held out of training where
    there is no such split on disk (0.1 and 0.2 if not said; the test first). `check`: before training, files are read
    to their end or their header alone. `skip_broken`: go on without those that cannot be read.
    """

    path: str = ""
    image_size: int = 224
    resize: int | None = None
    per_class: int | None = None
    val: float | None = None
    test: float | None = None
    in_memory: bool | Literal["auto"] = "auto"
    check: Check = "full"
    skip_broken: bool = False


def folder_splits(options: FolderOptions, location: Location) -> Splits:
    """The splits of a folder or zip, normalised by the statistics of (some of) its training images.

    ValueError names what does not fit: the arrangement of the folder, an option, files that cannot be read.
    """
    files = _files(options, location)
    listing = files.listing()
    layout = _limited(read_layout(files.root, listing), options.per_class, location.seed)
    layout = _complete(layout, options, location.seed)
    crop = Crop.of(options.image_size, options.resize)
    in_memory = _fits(layout, crop, options.in_memory)
    how = Opening(crop, in_memory, options.check, options.skip_broken, location.workers, location.memory)
    opened, notes = open_layout(files, layout, how)
    train = opened["train"]
    mean, std = channel_mean_std(train.take(balanced_indices(train.labels, _MEASURED)))
    notes = (*report_ignored(files, listing), *notes)
    return Splits(train, opened["val"], opened["test"], mean, std, notes)


def folder_pieces(options: FolderOptions, location: Location) -> Pieces:
    """The images of all splits; ValueError where there is no folder or zip."""
    return _files(options, location).pieces()


def _files(options: FolderOptions, location: Location) -> ImageFiles:
    if not options.path:
        raise Refusal("data set 'folder' needs the option path, of a folder or a zip with class/image in it")
    return open_files(location.root / options.path)


def load_folder(root: Path, *, image_size: int, n_images: int, per_class: int | None = None, seed: int = 0) -> ImageSet:
    """At most `n_images` training images of a folder or zip, as many of each class as there are, drawn by `seed`.

    `per_class`: instead of `n_images`, at most so many of each class. ValueError for a folder without classes, a
    class without images, or a file that is no image.
    """
    if n_images < 1:
        raise Refusal(f"n_images={n_images} must be at least 1")
    files = open_files(root)
    layout = read_layout(root, files.listing())
    train = layout.splits["train"]
    random = Random(seed)
    shuffled = [random.sample(of_class, len(of_class)) for of_class in _by_class(train)]
    in_turn = [index for index in chain.from_iterable(zip_longest(*shuffled)) if index is not None]
    chosen = train.subset(in_turn[: n_images if per_class is None else at_most_of_each(train.labels, per_class)])
    images, broken = decode_all(files, chosen, layout.classes, Crop.of(image_size))
    report_broken(files, broken, len(chosen), skip=False)
    return images


def _complete(layout: Layout, options: FolderOptions, seed: int) -> Layout:
    """The same with a test and a validation split, held out of training where they are not on disk.

    ValueError for a single class, and for a share of a split that is on disk already.
    """
    check_classes(layout)
    for split, amount in (("test", options.test), ("val", options.val)):
        if split not in layout.splits:
            train = layout.splits["train"]
            kept, held = held_out(train.labels, _DEFAULT[split] if amount is None else amount, seed=seed, split=split)
            layout = layout.with_split("train", train.subset(kept))
            layout = layout.with_split(split, train.subset(held))
        elif amount is not None:
            raise Refusal(f"{layout.root}: {split}={amount:g} is to be held out, but there is a {split} on disk")
    return layout


def _limited(layout: Layout, per_class: int | None, seed: int) -> Layout:
    """At most `per_class` images of each class, drawn by `seed`, in each split but the test split."""
    if per_class is None:
        return layout
    if per_class < 1:
        raise Refusal(f"per_class={per_class} must be at least 1")
    for split, labelled in layout.splits.items():
        if split != "test":
            rng = np.random.default_rng([seed, *b"per_class", SPLITS.index(split)])
            chosen = [index for found in _by_class(labelled) for index in rng.permutation(found)[:per_class].tolist()]
            layout = layout.with_split(split, labelled.subset(sorted(chosen)))
    return layout


def _by_class(labelled: Labelled) -> list[list[int]]:
    """Ascending indices of the files of each class."""
    return [torch.nonzero(labelled.labels == label).flatten().tolist() for label in labelled.labels.unique()]


def _fits(layout: Layout, crop: Crop, in_memory: bool | Literal["auto"]) -> bool:
    """Whether images are held in memory: as asked, or where all splits together are small."""
    if in_memory != "auto":
        return in_memory
    return 3 * crop.size**2 * sum(map(len, layout.splits.values())) <= _MEMORY
