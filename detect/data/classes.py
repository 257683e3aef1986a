"""Classes are matched by name, whatever ids a file gives them: of training and test, of a detector and other images."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from detect.data.images import UNKNOWN
from detect.data.records import DetectionDataset, Split
from pruning.errors import Refusal


@dataclass(frozen=True)
class MatchedDataset:
    """One side of two. Its classes are those of training's categories that have a box on either side.

    Of VOC's, which has no categories, they are those that were given to both sides.
    """

    train: DetectionDataset
    test: DetectionDataset
    side: Literal["train", "test"]

    @cached_property
    def split(self) -> Split:
        """The split of that side; ValueError if the files cannot be read or their categories do not fit together."""
        train, test = match_classes(self.train.split, self.test.split)
        return train if self.side == "train" else test


@dataclass(frozen=True)
class NamedDataset:
    """Images that a detector was not trained beside, with its classes in its order.

    ValueError from the split if it has boxes of another class, or none at all.
    """

    dataset: DetectionDataset
    classes: tuple[str, ...]

    @cached_property
    def split(self) -> Split:
        """All images; a note names the classes that have no box."""
        found = self.dataset.split
        count = _boxes_by_name(found)
        strange = [name for name in found.classes if count[name] and name not in self.classes]
        if strange or not count:
            what = f"its boxes of {_listed(strange)} are" if strange else "it has no box that is"
            raise Refusal(
                f"{found.source}: {what} of no class of the detector, which finds {_listed(self.classes)}; classes are"
                " matched by name"
            )
        absent = [name for name in self.classes if not count[name]]
        note = f"{found.source}: it has no box of {_listed(absent)}, which therefore {_has(absent)} no AP"
        return _with_classes(found, self.classes, (note,) if absent else ())


@dataclass(frozen=True)
class ValidatedDataset:
    """Training images of a data set that has validation images of its own, or these; both have training's classes."""

    train: DetectionDataset
    val: DetectionDataset
    side: Literal["train", "val"]

    @cached_property
    def split(self) -> Split:
        """The split of that side, with a note on what validates; ValueError as of `NamedDataset`."""
        train = self.train.split
        val = NamedDataset(self.val, train.classes).split
        side = train if self.side == "train" else val
        note = f"{val.source}: its {len(val.images)} images are for validation, nothing is trained on them"
        return replace(side, notes=(*side.notes, note))


def match_classes(train: Split, test: Split) -> tuple[Split, Split]:
    """Both splits with the same classes in the same order: those that training names and that have a box somewhere.

    A category of the test file that has boxes and that training does not name is refused with both lists. The notes
    name classes without boxes. Each split keeps its own category ids: they are what its file means by them.
    """
    known, tested = set(train.classes), _boxes_by_name(test)
    strange = [name for name in test.classes if tested[name] and name not in known]
    if strange:
        raise Refusal(
            f"{test.source}: its boxes of {_listed(strange)} have no category in {train.source}; categories are matched"
            f" by name: {_listed(train.classes)} in {train.source}, {_listed(test.classes)} in {test.source}"
        )
    trained = _boxes_by_name(train)
    given = train.voc_year is not None
    classes = tuple(name for name in train.classes if given or trained[name] or tested[name])
    if not classes:  # every box is of an unknown class, which is said where boxes are checked
        return train, _with_classes(test, train.classes, ())
    return (
        _with_classes(train, classes, tuple(_notes_on_train(train, test, classes))),
        _with_classes(test, classes, tuple(_notes_on_test(train, test, classes, tested))),
    )


def _notes_on_train(train: Split, test: Split, classes: tuple[str, ...]) -> Iterator[str]:
    trained, tested = _boxes_by_name(train), _boxes_by_name(test)
    for name in train.classes:
        if name not in classes:
            yield f"{train.source}: category {name!r} has no box: the detector has no output for it"
        elif not trained[name]:
            there = (
                f"but it has in {test.source}: no detector can learn it" if tested[name] else f"nor in {test.source}"
            )
            yield f"{train.source}: category {name!r} has no box, {there}"


def _notes_on_test(train: Split, test: Split, classes: tuple[str, ...], count: Counter[str]) -> Iterator[str]:
    absent = [name for name in classes if not count[name]]
    if absent:
        yield f"{test.source}: it has no box of {_listed(absent)}, which therefore {_has(absent)} no AP"
    unknown = [name for name in test.classes if name not in train.classes]
    if unknown:
        yield f"{test.source}: {_listed(unknown)}, without a box, {_has(unknown)} no match in {train.source}: left out"
    elsewhere = [name for name in classes if name in test.classes and _id_of(train, name) != _id_of(test, name)]
    if elsewhere:
        yield f"{test.source}: {_listed(elsewhere)} {_has(elsewhere)} other ids than in {train.source}: matched by name"


def _has(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _boxes_by_name(split: Split) -> Counter[str]:
    labels, counts = np.unique(split.images.labels, return_counts=True)
    found = zip(labels.tolist(), counts.tolist(), strict=True)
    return Counter({split.classes[label]: count for label, count in found if label != UNKNOWN})


def _with_classes(split: Split, classes: tuple[str, ...], notes: tuple[str, ...]) -> Split:
    """`split` with these classes instead of its own; those that it lacks get ids above its own."""
    if split.classes == classes:
        return replace(split, notes=(*split.notes, *notes))
    own = dict(zip(split.classes, split.category_ids, strict=True))
    unused = max(own.values(), default=0) + 1
    ids = tuple(own.get(name, unused + k) for k, name in enumerate(classes))
    place = {name: k for k, name in enumerate(classes)}
    images = split.images.relabelled([place.get(name, UNKNOWN) for name in split.classes])
    return replace(split, classes=classes, category_ids=ids, images=images, notes=(*split.notes, *notes))


def _id_of(split: Split, name: str) -> int:
    return split.category_ids[split.classes.index(name)]


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(repr, names))
