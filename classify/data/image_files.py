"""Image files below a folder or inside a zip, which is read as it is and never unpacked."""

import hashlib
import os
import stat
import zipfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from classify.data.content import Pieces
from pruning.errors import Refusal
from training.files import sha256
from training.remembered import ABSENT, Stamps, stamp_of, stamps_of
from training.texts import Texts, to_bytes, to_name

SUFFIXES: tuple[str, ...] = IMG_EXTENSIONS
_DEEPEST = 6  # folders below each other; deeper, a link leads back to where it came from
_LARGEST_MEMBER = 1 << 28  # bytes; a zip that claims more for one image is broken or hostile


@dataclass(frozen=True)
class ImageFile:
    """A file by its path below the root, with forward slashes, and its size in bytes (0 where it is missing)."""

    name: str
    size: int


@dataclass(frozen=True, eq=False)
class ImageList:
    """Image files by number, without an object for each: under a hundred bytes a file.

    `names`, `sizes`, `stamps`: of all files below the root, in alphabetical order; the first as `to_bytes` packs them,
    bytes, and (N, 3). `index`: int64 (n,), which of them are in this list.
    """

    names: Texts
    sizes: NDArray[np.int64]
    stamps: Stamps
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> ImageFile:
        row = self.index[position]
        return ImageFile(to_name(self.names[row]), int(self.sizes[row]))

    def __iter__(self) -> Iterator[ImageFile]:
        return map(self.__getitem__, range(len(self)))

    def take(self, positions: NDArray[np.int64]) -> "ImageList":
        """The files at these positions alone; the memory is shared."""
        return replace(self, index=self.index[positions])


@dataclass(frozen=True, eq=False)
class Listing:
    """What is below a root, in alphabetical order. Hidden files and folders are left out.

    `files` are all images, `parents` the number in `folders` of each one's folder (N,). `folders` are the names of all
    folders, "" the root, `ignored` those of files that are no images by their suffix.
    """

    files: ImageList
    parents: NDArray[np.int32]
    folders: tuple[str, ...]
    ignored: tuple[str, ...]


class ImageFiles(Protocol):
    """A place that images are read from."""

    @property
    def root(self) -> Path: ...

    def listing(self) -> Listing: ...

    def open(self, name: str) -> BinaryIO:
        """The content of a file; the caller closes it."""
        ...

    def pieces(self) -> Pieces:
        """What the images are, by their names below the root: the same in a folder and in a zip of it."""
        ...


def open_files(path: Path) -> ImageFiles:
    """The images of a folder or of a .zip; ValueError where `path` is neither."""
    if path.is_dir():
        return FolderFiles(path)
    if zipfile.is_zipfile(path):
        return ZipFiles(path)
    raise Refusal(f"{path}: {'neither a folder nor a zip' if path.exists() else 'no such folder or zip'}")


@dataclass(frozen=True)
class FolderFiles:
    """A folder on disk; links in it are followed."""

    root: Path

    def listing(self) -> Listing:
        """ValueError where folders are nested without end."""
        found = _Found()
        _walk(self.root, "", 0, found)
        stamps = np.array(found.stamps, np.int64).reshape(-1, 3)
        return found.listing(stamps, sizes=stamps[:, 0].clip(min=0))

    def open(self, name: str) -> BinaryIO:
        """The file on disk."""
        return (self.root / name).open("rb")

    def pieces(self) -> Pieces:
        """Each image is a file."""
        files = self.listing().files
        return Pieces(files.names, files.names, files.stamps, lambda index: sha256(self.root / files[index].name))


@dataclass(frozen=True)
class ZipFiles:
    """A zip archive; names that lead out of it, links and encrypted files are refused."""

    root: Path

    def listing(self) -> Listing:
        """ValueError for a damaged archive and for names that no honest archive has."""
        members = self._archive().infolist()
        files: dict[str, int] = {}
        folders: set[str] = set()
        for member in members:
            _check_member(self.root, member)
            name = member.filename.rstrip("/")
            if name in files:
                raise Refusal(f"{self.root}: {name} is in it twice")
            if member.is_dir():
                folders.add(name)
            else:
                files[name] = member.file_size
            while (name := parent_of(name)) and name not in folders:
                folders.add(name)
        found, sizes = _Found(), array("q")
        found.folders += sorted(name for name in folders if not _hidden(name))
        number = {name: i for i, name in enumerate(found.folders)}
        for name in sorted(name for name in files if not _hidden(name)):
            if found.add(name, number[parent_of(name)]):
                sizes.append(files[name])
        stamps = np.broadcast_to(stamps_of([self.root]), (len(sizes), 3))
        return found.listing(stamps, sizes=np.array(sizes, np.int64))

    def open(self, name: str) -> BinaryIO:
        """The unpacked content, its checksum compared."""
        return BytesIO(self._read(name))

    def pieces(self) -> Pieces:
        """Each image is read from the archive."""
        files = self.listing().files

        def digest(index: int) -> str:
            return hashlib.sha256(self._read(files[index].name)).hexdigest()

        return Pieces(files.names, files.names, files.stamps, digest)

    def _read(self, name: str) -> bytes:
        return self._archive().read(name)

    def _archive(self) -> zipfile.ZipFile:
        return _opened(self.root, stamp_of(self.root.stat()), os.getpid())


@lru_cache(maxsize=4)
def _opened(path: Path, stamp: tuple[int, int, int], process: int) -> zipfile.ZipFile:
    """The archive as it is now; one for each process, as processes that share an open file also share its position."""
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Refusal(f"{path}: not readable as a zip ({error})") from error


def parent_of(name: str) -> str:
    """The folder of a file or folder, by its path below the root; that of the outermost ones is ""."""
    return name.rpartition("/")[0]


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in name or "\0" in name:
        raise Refusal(f"{archive}: refused, as the name {name!r} in it leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise Refusal(f"{archive}: refused, as {name!r} in it is a symbolic link")
    if member.flag_bits & 1:
        raise Refusal(f"{archive}: {name!r} in it is encrypted")
    if member.file_size > _LARGEST_MEMBER:
        raise Refusal(f"{archive}: refused, as {name!r} in it unpacks to {member.file_size} bytes")


class _Found:
    """A listing as it grows; files and folders come in alphabetical order. `stamps`: those of each image in turn."""

    def __init__(self) -> None:
        self.packed, self.ends = bytearray(), array("q")
        self.stamps, self.parents = array("q"), array("i")
        self.folders, self.ignored = [""], list[str]()

    def add(self, name: str, parent: int) -> bool:
        """Count a file in the folder number `parent`; is it an image?"""
        if not name.lower().endswith(SUFFIXES):
            self.ignored.append(name)
            return False
        self.packed += to_bytes(name)
        self.ends.append(len(self.packed))
        self.parents.append(parent)
        return True

    def listing(self, stamps: Stamps, *, sizes: NDArray[np.int64]) -> Listing:
        """All that was found."""
        names = Texts(bytes(self.packed), np.array(self.ends, np.int64))
        files = ImageList(names, sizes, stamps, np.arange(len(names)))
        return Listing(files, np.array(self.parents, np.int32), tuple(self.folders), tuple(self.ignored))


def _walk(root: Path, below: str, depth: int, found: _Found) -> None:
    """Count what is in the folder `below`, which is "" or ends in a slash, with what is in its folders."""
    if depth > _DEEPEST:
        raise Refusal(f"{root / below}: folders are nested too deep for class/image")
    parent = len(found.folders) - 1
    with os.scandir(root / below) as entries:
        # a folder's place among the others follows from its files' names, in which a slash comes next
        inside = [(entry.name + "/" * entry.is_dir(), entry) for entry in entries if not _hidden(entry.name)]
    for name, entry in sorted(inside, key=itemgetter(0)):
        if name.endswith("/"):
            found.folders.append(below + entry.name)
            _walk(root, below + name, depth + 1, found)
        elif found.add(below + name, parent):
            # a link to nothing is listed, so that it is counted among the images that cannot be read
            found.stamps.extend(stamp_of(entry.stat()) if entry.is_file() else ABSENT)


def _hidden(name: str) -> bool:
    """Files of the system: dot files, and what a Mac puts in a zip beside its images."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
