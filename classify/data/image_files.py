"""Image files below a folder or inside a zip, which is read as it is and never unpacked."""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from torchvision.datasets.folder import IMG_EXTENSIONS

from classify.data.content import Piece
from pruning.errors import Refusal

SUFFIXES: tuple[str, ...] = IMG_EXTENSIONS
_DEEPEST = 6  # folders below each other; deeper, a link leads back to where it came from
_LARGEST_MEMBER = 1 << 28  # bytes; a zip that claims more for one image is broken or hostile


@dataclass(frozen=True)
class ImageFile:
    """A file by its path below the root, with forward slashes, and its size in bytes (0 where it is missing)."""

    name: str
    size: int


@dataclass(frozen=True)
class Listing:
    """What is below a root, in alphabetical order. Hidden files and folders are left out.

    `ignored` are the names of files that are no images by their suffix, `folders` those of all folders.
    """

    files: tuple[ImageFile, ...]
    ignored: tuple[str, ...]
    folders: tuple[str, ...]


class ImageFiles(Protocol):
    """A place that images are read from."""

    @property
    def root(self) -> Path: ...

    def listing(self) -> Listing: ...

    def open(self, name: str) -> BinaryIO:
        """The content of a file; the caller closes it."""
        ...

    def pieces(self) -> list[Piece]:
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
        found = list(_walk(self.root, "", 0))
        return _listing([(name, size) for name, size in found if size >= 0], [name for name, size in found if size < 0])

    def open(self, name: str) -> BinaryIO:
        """The file on disk."""
        return (self.root / name).open("rb")

    def pieces(self) -> list[Piece]:
        """Each image is a file."""
        return [Piece(image.name, self.root / image.name) for image in self.listing().files]


@dataclass(frozen=True)
class ZipFiles:
    """A zip archive; names that lead out of it, links and encrypted files are refused."""

    root: Path

    def listing(self) -> Listing:
        """ValueError for a damaged archive and for names that no honest archive has."""
        members = _archive(self.root, os.getpid()).infolist()
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
        return _listing(
            [(name, size) for name, size in files.items() if not _hidden(name)],
            [name for name in folders if not _hidden(name)],
        )

    def open(self, name: str) -> BinaryIO:
        """The unpacked content, its checksum compared."""
        return BytesIO(self._read(name))

    def pieces(self) -> list[Piece]:
        """Each image is read from the archive."""
        return [Piece(image.name, self.root, partial(self._read, image.name)) for image in self.listing().files]

    def _read(self, name: str) -> bytes:
        return _archive(self.root, os.getpid()).read(name)


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """The opened archive; one for each process, as processes that share an open file also share its position."""
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


def _walk(root: Path, below: str, depth: int) -> Iterator[tuple[str, int]]:
    """(path below `root`, size in bytes) of each file that is not hidden; folders have size -1."""
    if depth > _DEEPEST:
        raise Refusal(f"{root / below}: folders are nested too deep for class/image")
    with os.scandir(root / below) as entries:
        for entry in entries:
            name = below + entry.name
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                yield name, -1
                yield from _walk(root, name + "/", depth + 1)
            else:
                # a link to nothing is listed, so that it is counted among the images that cannot be read
                yield name, entry.stat().st_size if entry.is_file() else 0


def _hidden(name: str) -> bool:
    """Files of the system: dot files, and what a Mac puts in a zip beside its images."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _listing(files: list[tuple[str, int]], folders: list[str]) -> Listing:
    images = [ImageFile(name, size) for name, size in files if name.lower().endswith(SUFFIXES)]
    ignored = [name for name, _ in files if not name.lower().endswith(SUFFIXES)]
    return Listing(tuple(sorted(images, key=lambda image: image.name)), tuple(sorted(ignored)), tuple(sorted(folders)))
