"""MNIST (LeCun et al., 1998): 28 x 28 grey digits, from the files that torchvision downloads.

They are read here and not by torchvision's class, which takes files that were unpacked once as they are: the
checksums are those of the packed files.
"""

import gzip
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import MNIST

from classify.data.content import Piece, Pieces
from classify.data.download import checked_file, download
from classify.data.images import ImageSet
from classify.data.splits import Location, Splits, memory_splits
from pruning.errors import Refusal

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
CLASSES = tuple(str(digit) for digit in range(10))
FOLDER = "MNIST/raw"  # torchvision's
FILES: tuple[tuple[str, str], ...] = tuple(MNIST.resources)  # (name of the packed file, its MD5 sum)
_UNSIGNED_BYTE = 8  # type code of an IDX file


@dataclass(frozen=True)
class MnistOptions:
    """`val`: fraction or number of the 60,000 training images held out; `download`: get missing files."""

    val: float = 5000
    download: bool = False


def mnist_splits(options: MnistOptions, location: Location) -> Splits:
    """MNIST below `location.root`: the published test images, validation held out of the training images.

    ValueError for a missing or damaged file, and for a label out of range.
    """
    return open_mnist(FILES, options, location)


def open_mnist(files: tuple[tuple[str, str], ...], options: MnistOptions, location: Location) -> Splits:
    """Training images, training labels, test images and test labels from four files with their MD5 sums."""
    folder = location.root / FOLDER
    arrays = [_array(folder / name, md5, wanted=options.download) for name, md5 in files]
    train = _image_set(arrays[0], arrays[1], files[1][0])
    test = _image_set(arrays[2], arrays[3], files[3][0])
    return memory_splits(train, test, val=options.val, seed=location.seed, mean=MNIST_MEAN, std=MNIST_STD)


def mnist_pieces(files: tuple[tuple[str, str], ...], options: MnistOptions, location: Location) -> Pieces:
    """The four files, the same packed and unpacked; ValueError where one is missing."""
    pieces = []
    for name, md5 in files:
        file = _there(location.root / FOLDER / name, md5, wanted=options.download)
        pieces.append(Piece(Path(name).stem, file, partial(_content, file, md5) if file.name == name else None))
    return Pieces.of(pieces)


def _array(packed: Path, md5: str, *, wanted: bool) -> np.ndarray:
    """The array of an IDX file, packed (and then checked) or unpacked."""
    file = _there(packed, md5, wanted=wanted)
    return read_idx(file.name, _content(file, md5) if file == packed else file.read_bytes())


def _content(packed: Path, md5: str) -> bytes:
    return gzip.decompress(checked_file(packed, md5).read_bytes())


def _there(packed: Path, md5: str, *, wanted: bool) -> Path:
    """The packed file or, where that is not there, the unpacked one."""
    unpacked = packed.with_suffix("")
    if wanted and not packed.is_file() and not unpacked.is_file():
        download(packed, tuple(mirror + packed.name for mirror in MNIST.mirrors), md5)
    if not packed.is_file() and not unpacked.is_file():
        raise Refusal(f"{packed}: is not there; put it there, packed or unpacked, or set download: true")
    return packed if packed.is_file() else unpacked


def read_idx(name: str, content: bytes) -> np.ndarray:
    """The uint8 array of an IDX file: two zeros, type, number of axes, their lengths (big-endian), the values."""
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise Refusal(f"{name}: not an IDX file of bytes, it starts with {content[:4].hex(' ')}")
    start = 4 + 4 * content[3]
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], ">u4"))
    if len(shape) != content[3] or len(content) - start != math.prod(shape):
        raise Refusal(f"{name}: {len(content) - start} values for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _image_set(images: np.ndarray, labels: np.ndarray, name: str) -> ImageSet:
    """`name` is the file of the labels."""
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise Refusal(f"{name}: labels of shape {labels.shape} for images of shape {images.shape}")
    if labels.max(initial=0) >= len(CLASSES):
        raise Refusal(f"{name}: label {labels.max()} is outside 0..{len(CLASSES) - 1}")
    # np.array copies: what a file was read into cannot be written to, and a tensor must not pretend otherwise
    return ImageSet(torch.from_numpy(np.array(images))[:, None], torch.from_numpy(labels.astype(np.int64)), CLASSES)
