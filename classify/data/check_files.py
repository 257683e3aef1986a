"""Every image file is looked at before training starts; what cannot be read is named, counted, and never just gone."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from classify.data.decode import BrokenImage, Crop, centre, read_image
from classify.data.image_files import ImageFiles, ImageList, Listing
from classify.data.images import Images, ImageSet
from classify.data.layout import Labelled, Layout
from classify.data.streamed import StreamedImages
from pruning.errors import Refusal
from training.remembered import Asked, Found, remembered
from training.side_by_side import side_by_side
from training.texts import Texts

Check = Literal["full", "header"]
_SHOWN = 3
_LOG = logging.getLogger(__name__)


def broken_images(files: ImageFiles, listed: ImageList, check: Check, memory: Path | None = None) -> dict[str, str]:
    """Name -> reason of the files that cannot be read, looked at to their end ("full") or their header alone.

    Files of which only the header was read can still turn out to be cut short when they are used. The folder `memory`
    remembers those that can be read: of these only files that have changed are read again.
    """
    broken: dict[str, str] = {}

    def look(image: Image.Image) -> None:
        if check == "full":
            image.load()

    def find(position: int) -> Found:
        name = listed[position].name
        try:
            read_image(files, name, look)
        except BrokenImage as error:
            broken[name] = str(error)
        return b"", name not in broken

    whole = len(listed) == len(listed.names)
    keys = listed.names if whole else Texts.of(listed.names[row] for row in listed.index.tolist())
    asked = Asked(keys, listed.stamps[listed.index])
    remembered(memory, f"images in {files.root.resolve()}, check: {check}", asked, find, aloud=False)
    return broken


def decode_all(
    files: ImageFiles, labelled: Labelled, classes: tuple[str, ...], crop: Crop
) -> tuple[ImageSet, dict[str, str]]:
    """All images in memory, and name -> reason of those that cannot be read, which stay black."""
    images = torch.zeros(len(labelled), 3, crop.size, crop.size, dtype=torch.uint8)

    def keep(index: int) -> str | None:
        try:
            images[index] = read_image(files, labelled.files[index].name, lambda image: centre(image, crop))
        except BrokenImage as error:
            return str(error)
        return None

    reasons = side_by_side(keep, range(len(labelled)))
    broken = {labelled.files[index].name: reason for index, reason in enumerate(reasons) if reason is not None}
    return ImageSet(images, labelled.labels, classes), broken


def report_broken(files: ImageFiles, broken: Mapping[str, str], total: int, *, skip: bool) -> tuple[str, ...]:
    """Notes on the files left out, as {name: reason} of `total`; ValueError with the same words unless `skip`."""
    if not broken:
        return ()
    shown = ", ".join(f"{name} ({reason})" for name, reason in list(broken.items())[:_SHOWN])
    more = ", ..." if len(broken) > _SHOWN else ""
    found = f"{files.root}: {len(broken):,} of {total:,} images cannot be read: {shown}{more}"
    if not skip:
        raise Refusal(f"{found}; repair them, or set skip_broken: true to go on without them")
    _LOG.warning("%s; they are left out", found)
    return (f"{found}; they are left out",)


def report_ignored(files: ImageFiles, listing: Listing) -> tuple[str, ...]:
    """Notes on files that are no images by their suffix."""
    if not listing.ignored:
        return ()
    note = f"{files.root}: {len(listing.ignored):,} files are no images by their suffix, such as {listing.ignored[0]}"
    _LOG.warning("%s; they are not read", note)
    return (f"{note}; they are not read",)


@dataclass(frozen=True)
class Opening:
    """How files become images. `check` is for files that stay on disk: those in memory have been read to their end.

    `memory`: the folder that remembers which ones were found to be whole.
    """

    crop: Crop
    in_memory: bool
    check: Check
    skip_broken: bool
    workers: int
    memory: Path | None


def open_layout(files: ImageFiles, layout: Layout, how: Opening) -> tuple[dict[str, Images], tuple[str, ...]]:
    """The images of each split, and notes on the files left out.

    ValueError for files that cannot be read, unless they are skipped; and where too little is left then.
    """
    opened: dict[str, Images] = {}
    broken: dict[str, str] = {}
    for split, labelled in layout.splits.items():
        if how.in_memory:
            opened[split], more = decode_all(files, labelled, layout.classes, how.crop)
            broken |= more
        else:
            opened[split] = StreamedImages(files, labelled, layout.classes, how.crop, how.workers)
    if not how.in_memory:
        broken = broken_images(files, _all_files(layout), how.check, how.memory)
    total = sum(len(labelled) for labelled in layout.splits.values())
    notes = report_broken(files, dict(sorted(broken.items())), total, skip=how.skip_broken)
    return {split: _without(layout, split, opened[split], broken.keys()) for split in opened}, notes


def _all_files(layout: Layout) -> ImageList:
    """The files of all splits, each once, in alphabetical order."""
    lists = [labelled.files for labelled in layout.splits.values()]
    return replace(lists[0], index=np.unique(np.concatenate([files.index for files in lists])))


def _without(layout: Layout, split: str, images: Images, broken: Collection[str]) -> Images:
    """`images` without the files named in `broken`; ValueError where a class to train on, or everything, is gone."""
    if not broken:
        return images
    files = layout.splits[split].files
    kept = torch.tensor([i for i, file in enumerate(files) if file.name not in broken], dtype=torch.int64)
    if len(kept) == len(files):
        return images
    gone = sorted(set(images.labels.tolist()) - set(images.labels[kept].tolist()))
    if split == "train" and gone:
        raise Refusal(f"{layout.root}: no image of class {layout.classes[gone[0]]} in train can be read")
    if not len(kept):
        raise Refusal(f"{layout.root}: no image of {split} can be read")
    return images.subset(kept)
