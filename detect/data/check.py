"""Looks at a data set before anything is trained on it: what was found while reading, and every image file."""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

from detect.data.loader import DetectionDataset
from detect.data.problems import (
    BAD_ANNOTATION,
    IMAGE_ID_TWICE,
    KINDS,
    MALFORMED,
    MISSING,
    NO_ANNOTATION,
    SAME_CONTENT,
    SHARED,
    STRAY,
    TOO_DEEP,
    UNREADABLE,
    WRONG_SIZE,
    Problem,
    by_kind,
)
from detect.data.records import ImageRecord, Split

# What damaged files make Pillow raise; its own error for files that it does not know is an OSError
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_LEFT_OUT = (NO_ANNOTATION, BAD_ANNOTATION, IMAGE_ID_TWICE, MALFORMED, STRAY)  # of these a split has no image or box
_DEEP = ("I", "F")  # modes of 16 and 32 bits begin so; converted to RGB, everything above 255 becomes white
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width; Detectron2 turns such images upright


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


def check_split(split: Split) -> Checked:
    """Decode every image, several at a time, and add what is wrong with them to what reading found."""
    problems = list(split.problems)
    contents: dict[str, Path] = {}
    # Pillow decodes, and the disk is waited for, without Python's lock
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        looked_at = zip(split.images, threads.map(_look, split.images), strict=True)
        for image, (digest, problem) in looked_at:
            if problem is not None:
                problems.append(problem)
            if digest in contents and contents[digest] != image.file:
                problems.append(Problem(SAME_CONTENT, f"{image.file} and {contents[digest]}"))
            elif digest:
                contents[digest] = image.file
    return Checked(split, tuple(problems), contents)


def check_dataset(dataset: DetectionDataset) -> None:
    """Read everything once and decode every image; ValueError names all that would corrupt a result."""
    checked = check_split(dataset.split)
    refused = {k: v for k, v in by_kind(checked.problems).items() if KINDS[k].effect == "refused"}
    if refused:
        sentences = "; ".join(_sentence(checked.split, kind, places) for kind, places in refused.items())
        raise ValueError(f"{checked.split.source}: {sentences} (tools/check_data.py lists all)")


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


def _look(image: ImageRecord) -> tuple[str, Problem | None]:
    """SHA-256 of the file (empty if there is none) and what is wrong with it."""
    try:
        content = image.file.read_bytes()
    except FileNotFoundError:
        return "", Problem(MISSING, str(image.file))
    except OSError as error:
        return "", Problem(UNREADABLE, f"{image.file}: {error.strerror or error}")
    return hashlib.sha256(content).hexdigest(), _decode(image, content)


def _decode(image: ImageRecord, content: bytes) -> Problem | None:
    try:
        with Image.open(BytesIO(content)) as picture:
            mode, (width, height) = picture.mode, picture.size
            # a JPEG is read to its end at an eighth of its size too, in less than half of the time
            picture.draft(None, (1, 1))
            picture.load()
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE as error:
        reason = "no image of a known format" if "identify" in str(error) else str(error)
        return Problem(UNREADABLE, f"{image.file}: {reason}")
    if mode.startswith(_DEEP):
        return Problem(TOO_DEEP, f"{image.file}: mode {mode}; convert it to 8 bits")
    turned = " (turned upright as its EXIF orientation says)" if orientation in _TURNED else ""
    if turned:
        width, height = height, width
    if (width, height) != (image.width, image.height):
        annotated = f"annotated as {image.width} x {image.height}"
        return Problem(WRONG_SIZE, f"{image.file}: {width} x {height}{turned}, {annotated}")
    return None
