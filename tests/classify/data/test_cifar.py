"""CIFAR from fabricated archives of a few records, with their own checksums in place of the published ones."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from classify.data import open_splits
from classify.data.cifar import CIFAR10, CIFAR100, CIFAR_MEAN, CIFAR_STD, CifarOptions, cifar_pieces, open_cifar
from classify.data.splits import Location

N_EACH, N_TEST = 20, 10  # records of each training file, and of the test file


def records(files, n, value):
    """`n` records whose labels take turns; red pixels are `value`, green ones the label, blue ones their column."""
    made = np.zeros((n, files.label_bytes + 3072), dtype=np.uint8)
    labels = np.arange(n) % files.n_classes
    made[:, files.label_bytes - 1] = labels
    pixels = made[:, files.label_bytes :].reshape(n, 3, 32, 32)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = value, labels[:, None, None], np.arange(32)
    return made


def fabricate(root, files, damage=None):
    """The unpacked folder and its archive below `root`; the files with the archive's checksum and sizes."""
    folder = root / files.folder
    folder.mkdir(parents=True)
    for i, name in enumerate(files.train):
        records(files, N_EACH, 10 + i).tofile(folder / name)
    records(files, N_TEST, 99).tofile(folder / files.test)
    (folder / files.names).write_text("".join(f"class{i}\n" for i in range(files.n_classes)) + "\n")
    if damage:
        damage(folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, files.folder)
    (root / files.archive).write_bytes(packed.getvalue())
    md5 = hashlib.md5(packed.getvalue()).hexdigest()
    return replace(files, md5=md5, n_train=N_EACH * len(files.train), n_test=N_TEST)


def remove_folder(root, files):
    for file in (root / files.folder).iterdir():
        file.unlink()
    (root / files.folder).rmdir()


@pytest.mark.parametrize("place", ["archive", "folder"])
def test_pixels_and_labels_are_where_the_format_says(tmp_path, place):
    files = fabricate(tmp_path, CIFAR10)
    if place == "archive":
        remove_folder(tmp_path, files)
    else:
        (tmp_path / files.archive).unlink()
    splits = open_cifar(files, CifarOptions(val=10), Location(tmp_path))
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [90, 10, 10]
    assert splits.train.labels.bincount().tolist() == [9] * 10
    assert splits.val.labels.tolist() != splits.test.labels.tolist()
    assert splits.val.labels.bincount().tolist() == [1] * 10
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.test.images[:, 0].unique().tolist() == [99]
    assert splits.test.images[3, 1].unique().tolist() == [3]
    assert splits.test.images[3, 2, 5].tolist() == list(range(32))
    assert splits.train.images[:, 0, 0, 0].unique().tolist() == [10, 11, 12, 13, 14]  # all five files
    assert splits.train.classes[:2] == ("class0", "class1")
    assert (splits.mean, splits.std) == (CIFAR_MEAN, CIFAR_STD)


def test_the_archive_and_the_folder_consist_of_the_same(tmp_path):
    files = fabricate(tmp_path, CIFAR10)
    found = []
    for _ in ("packed", "unpacked"):
        pieces = cifar_pieces(files, CifarOptions(), Location(tmp_path))
        found.append([(name, pieces.sha256(index)) for index, name in enumerate(pieces.names)])
        (tmp_path / files.archive).unlink(missing_ok=True)
    assert found[0] == found[1] and len(found[0]) == len({digest for _, digest in found[0]}) == 7


def test_cifar100_has_the_fine_label(tmp_path):
    files = replace(fabricate(tmp_path, replace(CIFAR100, n_classes=5)))
    splits = open_cifar(files, CifarOptions(val=0.25), Location(tmp_path))
    assert splits.test.labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert splits.test.images[1, 1].unique().tolist() == [1]
    assert len(splits.val) == 5
    assert len(splits.train.classes) == 5


def test_validation_follows_from_the_data_seed(tmp_path):
    files = fabricate(tmp_path, CIFAR10)
    prints = [open_cifar(files, CifarOptions(val=30), Location(tmp_path, seed)).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_a_wrong_checksum_names_the_file(tmp_path):
    files = fabricate(tmp_path, CIFAR10)
    archive = tmp_path / files.archive
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"{files.archive}: its MD5 sum is not {files.md5}, so it is damaged"):
        open_cifar(files, CifarOptions(), Location(tmp_path))


def test_the_published_checksum_is_compared(tmp_path):
    (tmp_path / CIFAR10.archive).write_bytes(b"something else")
    with pytest.raises(ValueError, match="its MD5 sum is not c32a1d4ab5d03f1284b67883e8d87530"):
        open_splits("cifar10", root=tmp_path)


def test_missing_files_say_what_to_do(tmp_path):
    message = r"neither cifar-100-binary\.tar\.gz nor cifar-100-binary/ is there; .* set download: true"
    with pytest.raises(ValueError, match=message):
        open_splits("cifar100", root=tmp_path)


def bad_label(folder):
    content = bytearray((folder / "data_batch_3.bin").read_bytes())
    content[7 * 3073] = 10
    (folder / "data_batch_3.bin").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bad_label, r"cifar-10-batches-bin/data_batch_3\.bin: label 10 of record 7 is outside 0\.\.9"),
        (
            lambda folder: (folder / "test_batch.bin").write_bytes(bytes(3073 * 9)),
            r"test_batch\.bin: 27657 bytes, expected 30730, 10 records",
        ),
        (lambda folder: (folder / "data_batch_2.bin").unlink(), r"cannot be read \(.*data_batch_2\.bin"),
        (lambda folder: (folder / "batches.meta.txt").write_text("one\ntwo\n"), "2 class names, expected 10"),
    ],
)
@pytest.mark.parametrize("place", ["archive", "folder"])
def test_damaged_contents_are_refused(tmp_path, place, damage, message):
    files = fabricate(tmp_path, CIFAR10, damage)
    if place == "folder":
        (tmp_path / files.archive).unlink()
    with pytest.raises(ValueError, match=message):
        open_cifar(files, CifarOptions(val=10), Location(tmp_path))


def test_download_puts_a_checked_archive_in_place(tmp_path, monkeypatch):
    files = fabricate(tmp_path / "there", CIFAR10)
    content, asked = (tmp_path / "there" / files.archive).read_bytes(), []

    def fetch(url, root, filename, md5):
        asked.append((url, md5))
        (root / filename).write_bytes(content)

    monkeypatch.setattr("classify.data.download.download_url", fetch)
    here = tmp_path / "here"
    here.mkdir()
    splits = open_cifar(files, CifarOptions(val=10, download=True), Location(here))
    assert len(splits.train) == 90
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", files.md5)]
    assert [path.name for path in here.iterdir()] == [files.archive]


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def fetch(url, root, filename, md5):
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("classify.data.download.download_url", fetch)
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz could not be downloaded from https://.*corrupted"):
        open_splits("cifar10", root=tmp_path, download=True)
