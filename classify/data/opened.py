"""From a layout of files to splits: every file checked, then in memory or read as it goes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from classify.data.check_files import Check, broken_images, decode_all, report_broken
from classify.data.decode import Crop
from classify.data.image_files import ImageFiles
from classify.data.images import Images
from classify.data.layout import Labelled, Layout
from classify.data.streamed import StreamedImages


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
        raise ValueError(f"{layout.root}: no image of class {layout.classes[gone[0]]} in train can be read")
    if not len(kept):
        raise ValueError(f"{layout.root}: no image of {split} can be read")
    return images.subset(kept)
