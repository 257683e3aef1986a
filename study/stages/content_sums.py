"""SHA-256 of what data sets consist of: bytes are hashed once, later sizes and times tell that they are the same."""

import hashlib
import json
import os
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from classify.data.content import Piece
from training.files import sha256, write_text
from training.locks import locked

FOLDER = ".contents"  # below the runs folder: what was hashed, a file for each data set
_MANY_BYTES = 1 << 30  # reading so much takes long enough to say what is going on
# a file changed this short a time ago may change again without its times showing it: it is hashed again next time
_SETTLED_NS = 2_000_000_000
# content that cannot be read: whoever opens the data set says so, or leaves it out as it was asked to
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)

Stamp = tuple[int, int, int] | None  # size in bytes, times of change of content and of the entry in ns; None: absent


@dataclass(frozen=True)
class ContentSums:
    """`folder`: where sums are remembered, None: nowhere. Processes may share it; where it cannot be written it stays
    as it is.
    """

    folder: Path | None = None

    def digest(self, place: str, pieces: Sequence[Piece]) -> str:
        """SHA-256 over the names and contents of `pieces`, in their order; `place` names the data set in messages."""
        stamps = [_stamp(piece.file) for piece in pieces]
        state = _over(json.dumps([p.name, str(p.file), s]) for p, s in zip(pieces, stamps, strict=True))
        file = None if self.folder is None else self.folder / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.jsonl"
        known = _head(file)
        if known.get("state") == state:
            return str(known["sha256"])
        with alone(file):  # of several processes that start together one reads the bytes
            known = _head(file)
            if known.get("state") == state:
                return str(known["sha256"])
            before = time.time_ns()
            sums = _sums(place, pieces, stamps, _remembered(file))
            found = _over(f"{piece.name}\0{text}" for piece, text in zip(pieces, sums, strict=True))
            if file is not None:
                _write(file, {"place": place, "state": state, "sha256": found}, pieces, stamps, sums, before)
        return found


def _sums(
    place: str, pieces: Sequence[Piece], stamps: Sequence[Stamp], known: dict[tuple[str, str], tuple[Stamp, str]]
) -> list[str]:
    """The sum of each piece: remembered where its file is as it was, otherwise read, several at a time."""

    def one(piece: Piece, stamp: Stamp) -> str:
        old = known.get((piece.name, str(piece.file)))
        if old is not None and old[0] == stamp:
            return old[1]
        if stamp is None:
            return "absent"
        try:
            return sha256(piece.file) if piece.read is None else hashlib.sha256(piece.read()).hexdigest()
        except _DAMAGE:
            return "unreadable"

    total = _bytes(pieces, stamps)
    if total > _MANY_BYTES and not known:
        print(f"{place}: reading its {total / 1e9:.1f} GB once, to know them again", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as threads:  # hashing lets go of Python's lock
        return list(threads.map(one, pieces, stamps))


def _bytes(pieces: Sequence[Piece], stamps: Sequence[Stamp]) -> int:
    """Bytes of the files, each once."""
    sizes = {piece.file: stamp[0] for piece, stamp in zip(pieces, stamps, strict=True) if stamp is not None}
    return sum(sizes.values())


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _over(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _head(file: Path | None) -> dict[str, str]:
    """The first line: the state of all files together, and the sum that belongs to it; empty if there is none."""
    if file is not None:
        with suppress(OSError, ValueError), file.open(encoding="utf-8") as lines:
            found = json.loads(next(lines, "{}"))
            return found if isinstance(found, dict) else {}
    return {}


def _remembered(file: Path | None) -> dict[tuple[str, str], tuple[Stamp, str]]:
    """The other lines: name and file -> stamp and sum. A damaged file is no memory, and no harm."""
    known: dict[tuple[str, str], tuple[Stamp, str]] = {}
    if file is not None:
        with suppress(OSError, ValueError, TypeError), file.open(encoding="utf-8") as lines:
            next(lines, None)
            for line in lines:
                name, path, (size, changed, entry), text = json.loads(line)
                known[name, path] = ((size, changed, entry), text)
    return known


def _write(
    file: Path,
    head: dict[str, str],
    pieces: Sequence[Piece],
    stamps: Sequence[Stamp],
    sums: Sequence[str],
    before: int,
) -> None:
    """Remember what will still be true: files that had settled when they were read, and were not absent or damaged."""
    lines = [
        json.dumps([piece.name, str(piece.file), stamp, text])
        for piece, stamp, text in zip(pieces, stamps, sums, strict=True)
        if stamp is not None and text != "unreadable" and max(stamp[1:]) < before - _SETTLED_NS
    ]
    first = head if len(lines) == len(pieces) else {"place": head["place"]}
    with suppress(OSError):
        write_text(file, "\n".join([json.dumps(first), *lines]) + "\n", flush=False)


@contextmanager
def alone(file: Path | None) -> Iterator[None]:
    """No other process reads the same bytes meanwhile, where that can be known."""
    with ExitStack() as stack:
        if file is not None:
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(file.with_suffix(".lock")))
        yield
