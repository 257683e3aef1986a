"""Every image file is looked at before training starts; what cannot be read is named, counted, and never just gone."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from PIL import Image

from classify.data.decode import BrokenImage, Crop, centre, read_image
from classify.data.image_files import ImageFiles, Listing
from classify.data.images import ImageSet
from classify.data.layout import Labelled

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
        raise ValueError(f"{found}; repair them, or set skip_broken: true to go on without them")
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
