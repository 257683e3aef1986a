"""MNIST from fabricated IDX files of a few digits."""

import gzip
import hashlib

import numpy as np
import pytest

from classify.data import open_splits
from classify.data.mnist import FILES, FOLDER, MnistOptions, mnist_pieces, open_mnist, read_idx
from classify.data.splits import Location


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def digits(n, value):
    """`n` grey images whose first row is their column number, the rest `value`; labels take turns."""
    images = np.full((n, 28, 28), value)
    images[:, 0] = np.arange(28)
    return images, np.arange(n) % 10


def fabricate(root, *, packed=True, **changed):
    """Four files below `root`, and their names and checksums; `changed` replaces train_labels and the like."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    arrays = dict(zip(("train", "train_labels", "test", "test_labels"), (*digits(40, 7), *digits(10, 9)), strict=True))
    files = []
    for (name, _), array in zip(FILES, (arrays | changed).values(), strict=True):
        content = gzip.compress(idx(array)) if packed else idx(array)
        (folder / (name if packed else name.removesuffix(".gz"))).write_bytes(content)
        files.append((name, hashlib.md5(content).hexdigest()))
    return tuple(files)


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels(tmp_path, packed):
    splits = open_mnist(fabricate(tmp_path, packed=packed), MnistOptions(val=10), Location(tmp_path))
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [30, 10, 10]
    assert splits.train.shape == (1, 28, 28)
    assert splits.test.images[4, 0, 0].tolist() == list(range(28))
    assert splits.test.images[4, 0, 1:].unique().tolist() == [9]
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.val.labels.bincount().tolist() == [1] * 10
    assert (splits.mean, splits.std) == ((0.1307,), (0.3081,))


def test_published_checksums_are_compared(tmp_path):
    fabricate(tmp_path)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: its MD5 sum is not f68b3c2dcbeaaa9f"):
        open_splits("mnist", root=tmp_path)


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: is not there; .* set download: true"):
        open_splits("mnist", root=tmp_path)


def test_packed_and_unpacked_files_consist_of_the_same(tmp_path):
    found = []
    for packed in (True, False):
        root = tmp_path / str(packed)
        pieces = mnist_pieces(fabricate(root, packed=packed), MnistOptions(), Location(root))
        found.append([(name, pieces.sha256(index)) for index, name in enumerate(pieces.names)])
    assert found[0] == found[1] and len(found[0]) == 4


def test_label_out_of_range(tmp_path):
    files = fabricate(tmp_path, train_labels=np.full(40, 11))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: label 11 is outside 0\.\.9"):
        open_mnist(files, MnistOptions(), Location(tmp_path))


def test_labels_for_other_images(tmp_path):
    files = fabricate(tmp_path, train_labels=np.zeros(39))
    with pytest.raises(ValueError, match=r"labels of shape \(39,\) for images of shape \(40, 28, 28\)"):
        open_mnist(files, MnistOptions(), Location(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\1\0\0\0\0", "not an IDX file of bytes, it starts with 00 00 0d 01"),
        (b"", "not an IDX file"),
        (idx(np.zeros((2, 3)))[:-1], r"5 values for the shape \(2, 3\)"),
        (b"\0\0\x08\3\0\0\0\1", r"values for the shape \(1,\)"),
    ],
)
def test_damaged_idx_files(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx("file", content)
