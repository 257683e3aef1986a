"""Files that stay on disk: listed without an object for each, looked at once, looked at again when they change."""

import random

import numpy as np
import pytest
import torch
from support.fabricated_images import encoded, write_images, write_zip

from classify.data import check_files, open_splits
from classify.data.image_files import SUFFIXES, open_files
from classify.data.layout import read_layout
from training import remembered


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that are looked at; what was written a moment ago counts as settled."""
    names, real = [], check_files.read_image
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(
        check_files, "read_image", lambda files, name, use: names.append(name) or real(files, name, use)
    )
    return names


@pytest.fixture
def pets(tmp_path):
    """Ten cats and ten dogs."""
    for kind, first in (("cat", 0), ("dog", 100)):
        write_images(tmp_path / "pets" / kind, 10, first=first)
    return tmp_path / "pets"


def opened(pets, **options):
    memory = pets.parent / "runs"
    given = {"path": pets.name, "image_size": 40, "in_memory": False, "val": 2, "test": 4} | options
    return open_splits("folder", root=pets.parent, memory=memory, **given)


def test_a_second_start_looks_at_no_file(pets, looked):
    first = opened(pets)
    assert len(looked) == len(set(looked)) == 20
    again = opened(pets)
    assert len(looked) == 20
    assert again.fingerprint == first.fingerprint
    opened(pets, seed=1)  # other splits of the same files
    opened(pets, per_class=5)
    assert len(looked) == 20
    opened(pets, check="header")  # which says less, and other things
    assert len(looked) == 40


def test_a_zip_is_looked_at_once_until_it_changes(tmp_path, looked):
    members = {f"{kind}/{k}.png": encoded(k) for kind in ("cat", "dog") for k in range(10)}
    write_zip(tmp_path / "pets.zip", members)
    for _ in range(2):
        opened(tmp_path / "pets.zip")
        assert len(looked) == 20
    write_zip(tmp_path / "pets.zip", members | {"dog/9.png": b"none"})
    for n_looked in (40, 41):
        with pytest.raises(ValueError, match=r"1 of 20 .* dog/9\.png \(no image of a known format\); repair"):
            opened(tmp_path / "pets.zip")
        assert len(looked) == n_looked


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.write_bytes(b"none".ljust(file.stat().st_size)), "no image of a known"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere.png")), "missing"),
    ],
    ids=["damaged", "a broken link"],
)
def test_a_changed_file_is_refused_in_the_same_words_as_without_a_memory(pets, looked, change, reason):
    opened(pets)
    change(pets / "dog" / "003.png")
    sentences = []
    for memory in (None, pets.parent / "runs", pets.parent / "runs"):
        with pytest.raises(ValueError, match=rf"1 of 20 images cannot be read: dog/003\.png \({reason}") as refused:
            open_splits("folder", root=pets.parent, memory=memory, path="pets", image_size=40, in_memory=False)
        sentences.append(str(refused.value))
    assert len(set(sentences)) == 1
    assert looked[40:] == ["dog/003.png"] * 2
    splits = opened(pets, skip_broken=True)
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 19 and len(splits.notes) == 1


def test_files_that_come_and_go_change_the_splits_and_only_new_ones_are_looked_at(pets, looked):
    opened(pets)
    (pets / "cat" / "000.png").unlink()
    (pets / "dog" / "new.png").write_bytes(encoded(7))
    splits = opened(pets, val=2, test=4)
    assert looked[20:] == ["dog/new.png"]
    names = {file.name for split in (splits.train, splits.val, splits.test) for file in split.labelled.files}
    assert len(names) == 20 and "dog/new.png" in names and "cat/000.png" not in names


NAMES = ["a", "a.b", "a-b", "a b", "A", "ab", "b", "ä", "\udcff", "z", "10", "9"]


def plain_listing(root):
    """(name, size) of all images in alphabetical order, and the other files, by pathlib."""
    found = sorted((str(p.relative_to(root)), p.stat().st_size) for p in root.rglob("*") if p.is_file())
    images = [(name, size) for name, size in found if name.lower().endswith(SUFFIXES)]
    return images, [name for name, size in found if (name, size) not in images]


@pytest.mark.parametrize("seed", range(5))
def test_the_listing_is_that_of_sorted_paths(tmp_path, seed):
    """Whatever comes before a slash in the alphabet, and names that are no UTF-8."""
    rng = random.Random(seed)
    for _ in range(60):
        parts = [rng.choice(NAMES) for _ in range(rng.randint(1, 3))]
        folder = tmp_path.joinpath("root", *parts)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / (rng.choice(NAMES) + rng.choice([".png", ".JPEG", ".txt", ".b.png"]))
        file.write_bytes(bytes(rng.randint(0, 9)))
    listing = open_files(tmp_path / "root").listing()
    images, others = plain_listing(tmp_path / "root")
    assert [(file.name, file.size) for file in listing.files] == images
    assert list(listing.ignored) == others
    assert [listing.folders[k] for k in listing.parents] == [name.rpartition("/")[0] for name, _ in images]
    assert sorted(listing.folders)[1:] == sorted(
        str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*") if p.is_dir()
    )


def test_files_of_a_class_stay_in_alphabetical_order_and_classes_go_by_their_own_names(tmp_path):
    for kind in ("a", "a.b", "a-b", "b"):
        write_images(tmp_path / "train" / kind, 3)
    layout = read_layout(tmp_path, open_files(tmp_path).listing())
    assert layout.classes == ("a", "a-b", "a.b", "b")
    train = layout.splits["train"]
    assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    expected = [f"train/{kind}/00{k}.png" for kind in layout.classes for k in range(3)]
    assert [file.name for file in train.files] == expected
    some = train.subset(torch.tensor([10, 1]))
    assert [file.name for file in some.files] == ["train/b/001.png", "train/a/001.png"]
    assert some.labels.tolist() == [3, 0]


def test_a_file_takes_less_than_a_hundred_bytes(tmp_path):
    for kind in ("n01440764", "n01443537"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for k in range(50):
            (tmp_path / "train" / kind / f"{kind}_{10000 + k}.JPEG").touch()
    files = open_files(tmp_path).listing().files
    arrays = (np.frombuffer(files.names.packed, np.uint8), files.names.ends, files.sizes, files.stamps, files.index)
    assert sum(array.nbytes for array in arrays) / len(files) < 100
    assert files.take(np.arange(10)).names is files.names


def test_files_that_cannot_be_stated_are_as_absent(pets):
    (pets / "cat" / "link.png").symlink_to("nowhere")
    files = open_files(pets).listing().files
    (place,) = [k for k, file in enumerate(files) if file.name == "cat/link.png"]
    assert files[place].size == 0 and files.stamps[place].tolist() == list(remembered.ABSENT)
