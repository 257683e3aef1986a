"""Files that are the old one or the new one, never a part: written beside, flushed to the disk, renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.errors import Refusal

PARTIAL = ".partial"  # the end of the names of files that are being written


def write_bytes(path: Path, *parts: bytes | memoryview, flush: bool = True) -> None:
    """Write `parts` one after the other to `path`; its folder is made. OSError names `path`, which is as it was.

    `flush=False` leaves it to the system when the bytes reach the disk: whole after any kill, but not after a power
    failure.
    """
    write_beside(path, *parts, flush=flush).replace(path)


def write_beside(path: Path, *parts: bytes | memoryview, flush: bool = True) -> Path:
    """Write `parts` to a new file beside `path`; returns its name. OSError names `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = -1, None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes it private
    except BaseException as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return Path(name)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing below `folder`, which no other process may be writing to."""
    for file in list(folder.rglob(f".*{PARTIAL}")):
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
    those of `known` (all names that a run may write) that are not written now are removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield staging
        staging.chmod(0o755)
        if not out.exists() or not any(out.iterdir()):
            staging.replace(out)
            return
        written = {file.name for file in staging.iterdir()}
        for file in staging.iterdir():
            file.replace(out / file.name)
        for name in known - written:
            (out / name).unlink(missing_ok=True)
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
        return hashlib.sha256(Path(stamps[0][0]).read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for name, there in stamps:
        content = hashlib.sha256(Path(name).read_bytes()).hexdigest() if there else "absent"
        digest.update(f"{Path(name).name} {content}\n".encode())
    return digest.hexdigest()
