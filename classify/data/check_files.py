"""Every image file is looked at before training starts; what cannot be read is named, counted, and never just gone."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image

from classify.data.decode import BrokenImage, Crop, centre, read_image
from classify.data.image_files import ImageFiles, Listing
from classify.data.images import Images, ImageSet
from classify.data.layout import Labelled, Layout
from classify.data.streamed import StreamedImages
from pruning.errors import Refusal

Check = Literal["full", "header"]
_THREADS = 4  # Pillow decodes, and the disk is waited for, without Python's lock
_SHOWN = 3
_LOG = logging.getLogger(__name__)


def broken_images(files: ImageFiles, labelled: Labelled, check: Check) -> dict[int, str]:
    """Index -> reason of the files that cannot be read, looked at to their end ("full") or their header alone.

    Files of which only the header was read can still turn out to be cut short when they are used.
    """

    def look(image: Image.Image) -> None:
        if check == "full":
            image.load()

    return _each(files, labelled, lambda _, image: look(image))


def decode_all(
    files: ImageFiles, labelled: Labelled, classes: tuple[str, ...], crop: Crop
) -> tuple[ImageSet, dict[int, str]]:
    """All images in memory, and index -> reason of those that cannot be read, which stay black."""
    images = torch.zeros(len(labelled), 3, crop.size, crop.size, dtype=torch.uint8)

    def keep(index: int, image: Image.Image) -> None:
        images[index] = centre(image, crop)

    broken = _each(files, labelled, keep)
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


def _each(files: ImageFiles, labelled: Labelled, use: Callable[[int, Image.Image], None]) -> dict[int, str]:
    """Index -> reason of the files that `use(index, image)` could not be called on, or failed on."""

    def attempt(index: int) -> str | None:
        try:
            read_image(files, labelled.files[index].name, lambda image: use(index, image))
        except BrokenImage as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_THREADS) as threads:
        reasons = threads.map(attempt, range(len(labelled)))
        return {index: reason for index, reason in enumerate(reasons) if reason is not None}


@dataclass(frozen=True)
class Opening:
    """How files become images. `check` is for files that stay on disk: those in memory have been read to their end."""

    crop: Crop
    in_memory: bool
    check: Check
    skip_broken: bool
    workers: int


def open_layout(files: ImageFiles, layout: Layout, how: Opening) -> tuple[dict[str, Images], tuple[str, ...]]:
    """The images of each split, and notes on the files left out.

    ValueError for files that cannot be read, unless they are skipped; and where too little is left then.
    """
    opened: dict[str, Images] = {}
    broken: dict[str, str] = {}
    for split, labelled in layout.splits.items():
        opened[split], reasons = _open(files, labelled, layout.classes, how)
        broken |= {labelled.files[index].name: reason for index, reason in reasons.items()}
    total = sum(len(labelled) for labelled in layout.splits.values())
    notes = report_broken(files, dict(sorted(broken.items())), total, skip=how.skip_broken)
    return {split: _without(layout, split, opened[split], broken) for split in opened}, notes


def _open(
    files: ImageFiles, labelled: Labelled, classes: tuple[str, ...], how: Opening
) -> tuple[Images, Mapping[int, str]]:
    """All images of a split, and index -> reason of those that cannot be read."""
    if how.in_memory:
        return decode_all(files, labelled, classes, how.crop)
    streamed = StreamedImages(files, labelled, classes, how.crop, how.workers)
    return streamed, broken_images(files, labelled, how.check)


def _without(layout: Layout, split: str, images: Images, broken: Mapping[str, str]) -> Images:
    """`images` without the files named in `broken`; ValueError where a class to train on, or everything, is gone."""
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
