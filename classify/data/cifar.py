"""CIFAR-10 and CIFAR-100 from their binary version (the Python version is a pickle, which could run code).

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. A record is one label byte (CIFAR-100: the
coarse and the fine label) and 3,072 pixel bytes: 32 x 32 of red, of green, of blue.
"""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from classify.data.content import Piece, Pieces
from classify.data.download import checked_file, download
from classify.data.images import ImageSet
from classify.data.splits import Location, Splits, memory_splits
from pruning.errors import Refusal

# As the studies that this project repeats state them; the exact deviations are about .247, .243 and .262.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
SIDE = 32
_URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class CifarOptions:
    """`val`: fraction or number of the 50,000 training images held out; `download`: get a missing archive."""

    val: float = 5000
    download: bool = False


@dataclass(frozen=True)
class CifarFiles:
    """One of the two sets as published: its archive, the folder in it, and the files of that folder."""

    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str  # of the classes, one a line
    n_classes: int
    label_bytes: int  # the last one is the label
    n_train: int = 50_000
    n_test: int = 10_000


CIFAR10 = CifarFiles(
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    n_classes=10,
    label_bytes=1,
)
CIFAR100 = CifarFiles(
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    n_classes=100,
    label_bytes=2,
)


def cifar10_splits(options: CifarOptions, location: Location) -> Splits:
    """CIFAR-10 below `location.root`: the published test images, validation held out of the training images."""
    return open_cifar(CIFAR10, options, location)


def cifar100_splits(options: CifarOptions, location: Location) -> Splits:
    """CIFAR-100 with its 100 fine labels, as `cifar10_splits`."""
    return open_cifar(CIFAR100, options, location)


def open_cifar(files: CifarFiles, options: CifarOptions, location: Location) -> Splits:
    """One of the two sets from its archive, or from the folder that the archive was unpacked into.

    ValueError for a missing or damaged archive, a file of another size, a label out of range.
    """
    contents = _contents(files, location.root, wanted=options.download)
    lines = contents[files.names].decode("ascii").split()
    if len(lines) != files.n_classes:
        raise Refusal(f"{files.folder}/{files.names}: {len(lines)} class names, expected {files.n_classes}")
    train = _images(files, contents, files.train, files.n_train // len(files.train), tuple(lines))
    test = _images(files, contents, (files.test,), files.n_test, tuple(lines))
    return memory_splits(train, test, val=options.val, seed=location.seed, mean=CIFAR_MEAN, std=CIFAR_STD)


def cifar_pieces(files: CifarFiles, options: CifarOptions, location: Location) -> Pieces:
    """The files of one of the two sets: the same unpacked and in the archive. ValueError where neither is there."""
    archive, folder = _places(files, location.root, wanted=options.download)
    names = (*files.train, files.test, files.names)
    if not archive.is_file():
        return Pieces.of([Piece(name, folder / name) for name in names])
    unpacked, lock = cache(lambda: _contents(files, location.root, wanted=False)), Lock()
    return Pieces.of([Piece(name, archive, partial(_entry, unpacked, lock, name)) for name in names])


def _entry(contents: Callable[[], dict[str, bytes]], lock: Lock, name: str) -> bytes:
    with lock:  # of several threads the first unpacks for all
        return contents()[name]


def _places(files: CifarFiles, root: Path, *, wanted: bool) -> tuple[Path, Path]:
    """The archive and the folder, one of which is there, downloaded if that is `wanted`."""
    archive, folder = root / files.archive, root / files.folder
    there = archive.is_file() or folder.is_dir()
    if not there and not wanted:
        raise Refusal(
            f"{root}: neither {files.archive} nor {files.folder}/ is there; put one of them there, or set"
            " download: true"
        )
    if not there:
        download(archive, (_URL + files.archive,), files.md5)
    return archive, folder


def _contents(files: CifarFiles, root: Path, *, wanted: bool) -> dict[str, bytes]:
    """The bytes of each file by its name; read from the archive, so that its checksum speaks for them."""
    archive, folder = _places(files, root, wanted=wanted)
    names = (*files.train, files.test, files.names)
    try:
        if archive.is_file():
            with tarfile.open(checked_file(archive, files.md5)) as opened:
                return {name: _member(opened, f"{files.folder}/{name}") for name in names}
        return {name: (folder / name).read_bytes() for name in names}
    except (OSError, KeyError, tarfile.TarError, EOFError) as error:
        raise Refusal(f"{archive if archive.is_file() else folder}: cannot be read ({error})") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    opened = archive.extractfile(name)
    if opened is None:
        raise KeyError(f"{name} is not a file")
    return opened.read()


def _images(
    files: CifarFiles, contents: dict[str, bytes], names: tuple[str, ...], n_each: int, classes: tuple[str, ...]
) -> ImageSet:
    """The records of the files `names`, `n_each` in every one of them."""
    record = files.label_bytes + 3 * SIDE * SIDE
    parts = []
    for name in names:
        if len(contents[name]) != n_each * record:
            raise Refusal(
                f"{files.folder}/{name}: {len(contents[name])} bytes, expected {n_each * record}, {n_each} records"
            )
        part = np.frombuffer(contents[name], np.uint8).reshape(n_each, record)
        labels = part[:, files.label_bytes - 1]
        if (bad := np.flatnonzero(labels >= files.n_classes)).size:
            raise Refusal(
                f"{files.folder}/{name}: label {labels[bad[0]]} of record {bad[0]} is outside 0..{files.n_classes - 1}"
            )
        parts.append(part)
    records = torch.from_numpy(np.concatenate(parts))
    images = records[:, files.label_bytes :].reshape(-1, 3, SIDE, SIDE)
    return ImageSet(images, records[:, files.label_bytes - 1].long(), classes)
