"""Looks at a data set before anything is trained on it: what was found while reading, and every image file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from classify.data.decode import has_16_bits
from detect.data.decoded import Decoded, decode_split
from detect.data.images import UNKNOWN, ImageRecord
from detect.data.picture import SIDEWAYS, UNTURNED
from detect.data.problems import (
    BAD_ANNOTATION,
    DEEP,
    IMAGE_ID_TWICE,
    KINDS,
    MALFORMED,
    NO_ANNOTATION,
    SAME_CONTENT,
    SHARED,
    STRAY,
    TOO_DEEP,
    TURNED,
    UNTRAINED,
    WRONG_SIZE,
    Problem,
    by_kind,
)
from detect.data.records import DetectionDataset, Split
from pruning.errors import Refusal

_LEFT_OUT = (NO_ANNOTATION, BAD_ANNOTATION, IMAGE_ID_TWICE, MALFORMED, STRAY)  # of these a split has no image or box
_DEEP = ("I", "F")  # modes of 32 bits a pixel


@dataclass(frozen=True)
class Checked:
    """A split, all that is wrong with it, and its image files by the SHA-256 of their contents."""

    split: Split
    problems: tuple[Problem, ...]
    contents: dict[str, Path]

    @property
    def sound(self) -> bool:
        """Is there nothing to repair?"""
        return not any(KINDS[problem.kind].fault for problem in self.problems)


def check_split(split: Split, memory: Path | None = None) -> Checked:
    """Decode every image, several at a time, and add what is wrong with them to what reading found.

    `memory`: the folder that remembers images that were decoded; None: all are decoded now.
    """
    problems = list(split.problems)
    contents: dict[str, Path] = {}
    for image, decoded in zip(split.images, decode_split(split, memory), strict=True):
        problems += picture_problems(image, decoded)
        digest = decoded.sha256
        if digest in contents and contents[digest] != image.file:
            problems.append(Problem(SAME_CONTENT, f"{image.file} and {contents[digest]}"))
        elif digest:
            contents[digest] = image.file
    return Checked(split, tuple(problems), contents)


def check_dataset(dataset: DetectionDataset, memory: Path | None = None) -> Checked:
    """Read everything once and decode every image; ValueError names all that would corrupt a result.

    `memory`: as of `check_split`.
    """
    checked = check_split(dataset.split, memory)
    refused = {k: v for k, v in by_kind(checked.problems).items() if KINDS[k].effect == "refused"}
    if refused:
        sentences = "; ".join(_sentence(checked.split, kind, places) for kind, places in refused.items())
        raise Refusal(f"{checked.split.source}: {sentences} (`prune-transfer check-data` lists all)")
    return checked


def check_apart(train: Checked, test: Checked) -> None:
    """ValueError if images of training are in the test split: what is measured on them would be no test.

    Likewise for a validation split, and for one and the test split.
    """
    shared = [problem.where for problem in shared_images(train, test)]
    if shared:
        raise Refusal(
            f"{test.split.source}: {len(shared)} of {len(test.split.images)} images are in {train.split.source} too,"
            f" such as {shared[0]}; take them out of one of the two, or set detector.dataset.allow_shared=true"
        )


def check_classes(train: Checked, test: Checked) -> None:
    """ValueError if the test split has boxes of classes that nobody listed and training has no box of."""
    found = list(untrained_classes(train, test))
    if found:
        raise Refusal(
            f"{test.split.source}: {len(found)} {UNTRAINED}, such as {found[0].where}; correct their names, or list the"
            " classes in detector.dataset.voc.classes to have them measured all the same"
        )


def untrained_classes(train: Checked, test: Checked) -> Iterator[Problem]:
    """Boxes of classes that are in the test split alone, where no list says which classes there are."""
    if test.split.declared:
        return
    trained = {train.split.classes[box.label] for box in train.split.boxes() if box.label != UNKNOWN}
    for image in test.split.images:
        for name in dict.fromkeys(test.split.classes[box.label] for box in image.boxes if box.label != UNKNOWN):
            if name not in trained:
                known = ", ".join(map(repr, sorted(trained))) or "none"
                yield Problem(UNTRAINED, f"{name!r} in {image.file.name} (trained on: {known})")


def shared_images(first: Checked, second: Checked) -> Iterator[Problem]:
    """Images of one split that are in another, by path or by content."""
    files = {image.file.resolve() for image in first.split.images}
    digests = {path: digest for digest, path in second.contents.items()}
    for image in second.split.images:
        digest = digests.get(image.file, "")
        if image.file.resolve() in files:
            yield Problem(SHARED, f"{image.file}")
        elif digest in first.contents:
            yield Problem(SHARED, f"{image.file}, the same content as {first.contents[digest]}")


def _sentence(split: Split, kind: str, places: list[str]) -> str:
    left_out = sum(p.kind in _LEFT_OUT and KINDS[p.kind].of == KINDS[kind].of for p in split.problems)
    there = len(split.images) if KINDS[kind].of == "images" else sum(1 for _ in split.boxes())
    return f"{len(places)} of {there + left_out} {kind}, such as {places[0]}"


def picture_problems(image: ImageRecord, decoded: Decoded) -> Iterator[Problem]:
    """What is wrong with a picture that has these annotations."""
    if decoded.fault:
        yield Problem(decoded.fault, f"{image.file}: {decoded.reason}" if decoded.reason else str(image.file))
        return
    if decoded.mode in _DEEP:
        yield Problem(TOO_DEEP, f"{image.file}: mode {decoded.mode}; convert it to 8 bits")
    if has_16_bits(decoded.mode):
        yield Problem(DEEP, f"{image.file}: mode {decoded.mode}")
    yield from _compare_sizes(image, decoded.size, decoded.turn)


def _compare_sizes(image: ImageRecord, size: tuple[int, int], turn: int) -> Iterator[Problem]:
    """`size`: width and height as stored; `turn`: the EXIF orientation, after which training turns the picture."""
    upright = size[::-1] if turn in SIDEWAYS else size
    annotated = image.width, image.height
    if upright != annotated:
        turned = " (turned upright as its EXIF orientation says)" if upright != size else ""
        found = f"{upright[0]} x {upright[1]}{turned}"
        yield Problem(WRONG_SIZE, f"{image.file}: {found}, annotated as {image.width} x {image.height}")
    elif turn != UNTURNED and size == annotated:
        yield Problem(TURNED, f"{image.file}: orientation {turn}; its boxes are taken to be of the upright picture")
