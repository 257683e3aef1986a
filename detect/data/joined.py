"""Several detection data sets as one, such as VOC 2007 and 2012 for training."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from detect.data.records import Split
from detect.data.voc import VocDataset


@dataclass(frozen=True)
class JoinedDataset:
    """The images of `parts`, in their order; all parts name the same classes.

    The split's source is the first part's. ValueError from it if two parts have images of the same id: a result could
    not say which it means.
    """

    parts: tuple[VocDataset, ...]

    @cached_property
    def split(self) -> Split:
        """All images and problems, read once."""
        splits = [part.split for part in self.parts]
        sources: dict[int | str, Path] = {}
        for split in splits:
            for image in split.images:
                first = sources.setdefault(image.id, split.source)
                if first is not split.source:
                    raise ValueError(f"{first} and {split.source} both have an image {image.id}: rename one of them")
        images = tuple(image for split in splits for image in split.images)
        problems = tuple(problem for split in splits for problem in split.problems)
        return replace(splits[0], images=images, problems=problems)
