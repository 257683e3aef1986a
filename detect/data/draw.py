"""Random shares of a data set's images, the same for the same seed: a test split, a validation split."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from detect.data.images import Images
from detect.data.records import DetectionDataset, Split
from pruning.errors import Refusal


def drawn(names: Iterable[str], share: float, seed: int) -> set[str]:
    """So many of the names, each once; a name's place in the draw depends on the seed and on itself alone.

    ValueError if that is none of them or all.
    """
    listed = set(names)
    count = round(len(listed) * share)
    if not 1 <= count < len(listed):
        raise Refusal(f"{share:g} of {len(listed)} images leaves a side without any")
    return set(sorted(listed, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:count])


@dataclass(frozen=True)
class Carved:
    """One side of a training split: the share that is kept for validation, or the rest, which is trained on.

    Both have the classes of the whole.
    """

    dataset: DetectionDataset
    share: float
    seed: int
    side: Literal["train", "val"]

    @cached_property
    def split(self) -> Split:
        """The images of that side; ValueError where a side has none, or training would lose all boxes of a class."""
        whole = self.dataset.split
        try:
            ids = [str(image.id) for image in whole.images]
            kept = drawn(ids, self.share, self.seed)
        except ValueError as error:
            raise Refusal(f"{whole.source}: validation {error}") from error
        for_val = np.array([image_id in kept for image_id in ids])
        sides = {side: whole.images.take(np.flatnonzero(for_val == (side == "val"))) for side in ("train", "val")}
        self._check(whole, sides["train"], sides["val"])
        said = f"{len(sides['val'])} of {len(whole.images)} training images are kept for validation"
        note = f"{whole.source}: {said} (detector.dataset.validation {self.share:g}, seed {self.seed})"
        return replace(whole, images=sides[self.side], notes=(*whole.notes, note))

    def _check(self, whole: Split, train: Images, val: Images) -> None:
        left, kept = (set(side.labels[side.trainable].tolist()) for side in (train, val))
        lost = [whole.classes[label] for label in sorted(kept - left)]
        if lost or not kept:
            what = f"every box of {lost[0]!r}" if lost else "no box at all"
            raise Refusal(
                f"{whole.source}: validation {self.share:g} with seed {self.seed} would keep {what};"
                " choose another validation_seed or share"
            )
