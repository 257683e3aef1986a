"""Files that are the old one or the new one, never a part: written beside, flushed to the disk, renamed."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.errors import Refusal

PARTIAL = ".partial"  # the end of the names of files that are being written


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the block, a full disk's say, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, *parts: bytes | memoryview, flush: bool = True) -> None:
    """Write `parts` one after the other to `path`; its folder is made. OSError names `path`, which is as it was.

    `flush=False` leaves it to the system when the bytes reach the disk: whole after any kill, but not after a power
    failure.
    """
    put_in_place(write_beside(path, *parts, flush=flush), path)


def write_beside(path: Path, *parts: bytes | memoryview, flush: bool = True) -> Path:
    """Write `parts` to a new file beside `path`, its mode by the umask; returns its name. OSError names `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    with naming(path), _removed_on_failure(temporary):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for part in parts:
                _write_all(descriptor, part)
            if flush:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return temporary


def put_in_place(temporary: Path, path: Path, *, keep_as: Path | None = None) -> None:
    """Rename `temporary`, which is whole, to `path`; what was there to `keep_as`. OSError names `path`.

    After an error what was there is there, or at `keep_as`, and `temporary` is gone.
    """
    with naming(path), _removed_on_failure(temporary):
        if keep_as is not None and path.is_file():
            path.replace(keep_as)
        temporary.replace(path)


def append_bytes(path: Path, data: bytes) -> None:
    """Write `data` behind what is in `path`, made if absent; OSError names `path`, where no part of it is left."""
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


@contextmanager
def _removed_on_failure(file: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise


def remove_partial(folder: Path, *, of: str | None = None) -> None:
    """Remove what a killed process was writing below `folder`, or in it of the file `of`: no other may be writing."""
    for file in list(folder.rglob(f".*{PARTIAL}") if of is None else folder.glob(f".{of}.*{PARTIAL}")):
        if file.is_file():
            file.unlink(missing_ok=True)


def check_output_folder(out: Path, *, force: bool) -> None:
    """ValueError unless results may be written into `out`: absent, empty, or to be replaced by `force`."""
    if out.exists() and not out.is_dir():
        raise Refusal(f"{out} is a file, not a folder")
    if not force and out.exists() and any(out.iterdir()):
        raise Refusal(f"{out} exists and is not empty; name another folder, or replace its files with --force")


@contextmanager
def whole_folder(out: Path, *, known: frozenset[str]) -> Iterator[Path]:
    """A new folder beside `out` to write into; its files move to `out` when the block ends without an error.

    An `out` that is absent or empty gets all files at once. In any other each file is replaced on its own, and
    those of `known` (all names that a run may write) that are not written now are removed. An OSError names the file
    as it would have been called in `out`.
    """
    staging = out.with_name(f".{out.name}.{secrets.token_hex(8)}{PARTIAL}")
    staging.mkdir(parents=True)
    try:
        yield staging
        if not out.exists() or not any(out.iterdir()):
            staging.replace(out)
            return
        written = {file.name for file in staging.iterdir()}
        for file in staging.iterdir():
            file.replace(out / file.name)
        for name in known - written:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(staging):
            raise
        raise OSError(error.errno, error.strerror, str(out / Path(error.filename).relative_to(staging))) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


Json = Mapping[str, Any]
"""An object of a JSON file, whose form the file's readers know."""


def canonical(data: object) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(data: object) -> str:
    """Twelve hexadecimal digits of SHA-256 over `canonical(data)`."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:12]


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write `text` so that `path` is the old file or the new one, never a part; see `write_bytes`."""
    write_bytes(path, text.encode(), flush=flush)


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically; NaN is refused."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; ValueError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: not readable as JSON ({error}); delete it to make it again") from error


def sha256(file: Path) -> str:
    """64 hexadecimal digits over the content of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; ValueError if it cannot be read."""
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file")
    return files_digest((path,))


def files_digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over the contents; read again only when a file's time or size has changed. Absent files count as such."""
    stamps = []
    for file in files:
        there = file.stat() if file.is_file() else None
        stamps.append((str(file), (there.st_mtime_ns, there.st_size) if there else None))
    return _digest_of(tuple(stamps))


@lru_cache(maxsize=16)
def _digest_of(stamps: tuple[tuple[str, tuple[int, int] | None], ...]) -> str:
    if len(stamps) == 1 and stamps[0][1]:
        return sha256(Path(stamps[0][0]))
    digest = hashlib.sha256()
    for name, there in stamps:
        content = sha256(Path(name)) if there else "absent"
        digest.update(f"{Path(name).name} {content}\n".encode())
    return digest.hexdigest()
