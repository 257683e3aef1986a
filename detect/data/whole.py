"""Going on without what is broken: only where a config asks for it, and never without a word."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from detect.data.check import picture_problems
from detect.data.decoded import decode_split
from detect.data.images import UNKNOWN
from detect.data.problems import BAD_ANNOTATION, MISSING, NO_ANNOTATION, UNREADABLE
from detect.data.records import DetectionDataset, Split
from pruning.errors import Refusal

BROKEN = (MISSING, UNREADABLE, NO_ANNOTATION, BAD_ANNOTATION)
_NAMED = 20  # in the note, of which a report shows all


@dataclass(frozen=True)
class WholeImages:
    """A data set without its images that cannot be read, and without those whose annotations cannot; notes name them.

    Every image is decoded when the split is first asked for, but for those that the folder `memory` remembers as whole.
    ValueError from it if a class or everything is gone.
    """

    dataset: DetectionDataset
    memory: Path | None = None

    @cached_property
    def split(self) -> Split:
        """What is left."""
        return without_broken(self.dataset.split, self.memory)


def without_broken(split: Split, memory: Path | None) -> Split:
    """`split` without broken images and annotation files; ValueError where none, or none of a class, is left."""
    decoded = zip(split.images, decode_split(split, memory), strict=True)
    broken = [[p for p in picture_problems(image, found) if p.kind in BROKEN] for image, found in decoded]
    left_out = [p for p in split.problems if p.kind in BROKEN] + [p for found in broken for p in found]
    if not left_out:
        return split
    images = split.images.take(np.flatnonzero([not found for found in broken]))
    gone = set(split.images.labels.tolist()) - set(images.labels.tolist()) - {UNKNOWN}
    if not images or gone:
        what = "image" if not images else f"image of class {split.classes[min(gone)]!r}"
        raise Refusal(f"{split.source}: no {what} can be read, such as {left_out[0].where}")
    total = len(split.images) + sum(p.kind in BROKEN for p in split.problems)
    names = "; ".join(f"{p.kind.removeprefix('images ')}: {p.where}" for p in left_out[:_NAMED])
    more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
    note = f"{split.source}: {len(left_out)} of {total} images are broken and left out (skip_broken): {names}{more}"
    rest = tuple(p for p in split.problems if p.kind not in BROKEN)
    return replace(split, images=images, problems=rest, notes=(*split.notes, note))
