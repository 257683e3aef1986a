"""A zip is read as a folder is, and never unpacked; what could lead out of one is refused."""

import stat
import zipfile

import pytest
import torch
from support.fabricated_images import encoded, write_zip

from classify.data import open_splits
from classify.data.image_files import open_files

PETS = {f"pets/{name}/{i}.png": encoded(red + i) for name, red in (("cat", 0), ("dog", 100)) for i in range(10)}


def opened(path, **options):
    return open_splits("folder", root=path.parent, path=path.name, image_size=40, val=2, test=2, **options)


def test_zip_and_folder_are_the_same_images(tmp_path):
    write_zip(tmp_path / "pets.zip", PETS | {"pets/": b"", "__MACOSX/pets/cat/._0.png": b"", "pets/.DS_Store": b""})
    with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    before = sorted(tmp_path.iterdir())
    zipped, folder = opened(tmp_path / "pets.zip"), opened(tmp_path / "unpacked")
    assert zipped.fingerprint == folder.fingerprint
    assert zipped.train.classes == ("cat", "dog")
    streamed = opened(tmp_path / "pets.zip", in_memory=False)
    assert torch.equal(streamed.train.take(torch.arange(16)), folder.train.images)
    assert sorted(tmp_path.iterdir()) == before


def link():
    info = zipfile.ZipInfo("pets/cat/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../outside.png", r"refused, as the name '\.\./outside\.png' in it leads out of the archive"),
        ("pets/cat/../../../outside.png", "leads out of the archive"),
        ("/etc/cat/0.png", "the name '/etc/cat/0.png' in it leads out"),
        ("..\\outside.png", "leads out of the archive"),
        ("C:/cat/0.png", "leads out of the archive"),
        (link(), "refused, as 'pets/cat/link.png' in it is a symbolic link"),
    ],
)
def test_hostile_names_are_refused(tmp_path, member, message):
    write_zip(tmp_path / "pets.zip", {**PETS, member: b"../../secret"})
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "pets.zip")


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    write_zip(tmp_path / "pets.zip", PETS)
    with zipfile.ZipFile(tmp_path / "pets.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("pets/cat/0.png", b"")
    with pytest.raises(ValueError, match=r"pets/cat/0\.png is in it twice"):
        opened(tmp_path / "pets.zip")


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "pets.zip", PETS)
    monkeypatch.setattr("classify.data.image_files._LARGEST_MEMBER", 10)
    with pytest.raises(ValueError, match=r"refused, as 'pets/cat/0\.png' in it unpacks to \d+ bytes"):
        opened(tmp_path / "pets.zip")


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / "pets.zip"
    write_zip(path, PETS)
    content = path.read_bytes()
    at = content.index(PETS["pets/dog/7.png"]) + 60  # stored as it is: its checksum in the zip no longer fits
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    with pytest.raises(ValueError, match=r"1 of 20 images cannot be read: pets/dog/7\.png \(Bad CRC-32"):
        opened(path)
    assert len(opened(path, skip_broken=True).train) >= 15


def test_an_archive_that_is_cut_short_is_refused(tmp_path):
    write_zip(tmp_path / "pets.zip", PETS)
    (tmp_path / "pets.zip").write_bytes((tmp_path / "pets.zip").read_bytes()[:200])
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        open_files(tmp_path / "pets.zip")
