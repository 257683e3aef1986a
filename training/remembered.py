"""What was found out about files, remembered: their bytes are read once, later sizes and times tell that they are as
they were."""

import hashlib
import logging
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from training.files import remove_partial, write_bytes
from training.locks import locked
from training.side_by_side import side_by_side
from training.texts import Texts, to_bytes

FOLDER = ".contents"  # what is remembered, below a folder of results: a file for each data set and question
ABSENT = (-1, -1, -1)
_MANY = 5000  # reading so many files takes long enough to say what is going on
_EVERY_SECONDS = 60.0  # how often it is said how far it is
# a file changed this short a time ago may change again without its times showing it: it is read again next time
_SETTLED_NS = 2_000_000_000
_log = logging.getLogger(__name__)

Stamps = NDArray[np.int64]  # (N, 3): size in bytes, times of change of content and of the entry in ns; ABSENT
Found = tuple[bytes, bool]  # what was found out, and whether that will be so as long as the file stays as it is


def stamp_of(found: os.stat_result) -> tuple[int, int, int]:
    """A row of `Stamps`."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def stamps_of(files: Iterable[str | Path]) -> Stamps:
    """The sizes and times of the files as they are now, (N, 3)."""
    rows = []
    for file in files:
        try:
            rows.append(stamp_of(os.stat(file)))  # noqa: PTH116 - of texts too
        except OSError:
            rows.append(ABSENT)
    return np.array(rows, np.int64).reshape(-1, 3)


def keys_of(files: Iterable[str | Path]) -> Texts:
    """Keys of files that are named by where they are; of relative paths from the working directory."""
    here = str(Path.cwd())
    return Texts.of(to_bytes(os.path.join(here, file)) for file in files)  # noqa: PTH118 - of texts too


@dataclass(frozen=True)
class Asked:
    """The files that a question is about: a key for each, which names it for good, and its size and times now."""

    keys: Texts
    stamps: Stamps


def remembered(
    folder: Path | None, what: str, asked: Asked, find: Callable[[int], Found], *, aloud: bool = True
) -> list[bytes]:
    """What `find(index)` finds out about each file: remembered in `folder` where its stamp is as it was.

    `what` is the question and the place of the files, a key is unique there. Several files are looked at at a time;
    `find` must be safe for that. Of processes that ask the same at once one looks, where there is a folder that can be
    written. What was found before an interruption is remembered. `aloud`: say on the terminal how far it is, not in
    the log.
    """
    file = None if folder is None else folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"
    known = _recall(file, asked)
    if None not in known:
        return _complete(known)
    with alone(file):
        known = _recall(file, asked)  # another process may have found it while this one waited
        missing = [index for index, text in enumerate(known) if text is None]
        keep = np.array([text is not None for text in known])
        settled = (asked.stamps[:, 0] >= 0) & (asked.stamps[:, 1:].max(1) < time.time_ns() - _SETTLED_NS)
        n_known = keep.sum()
        try:
            found = side_by_side(find, missing)
            for index, (text, lasts) in zip(missing, _told(found, what, len(missing), aloud=aloud), strict=True):
                known[index], keep[index] = text, lasts and settled[index]
        finally:
            if file is not None and keep.sum() > n_known:
                _write(file, asked, known, keep)
    return _complete(known)


def _complete(known: Sequence[bytes | None]) -> list[bytes]:
    return [text for text in known if text is not None]


@dataclass(frozen=True)
class _Memory:
    """What a file remembers; `asked` is what was asked about then."""

    asked: Asked
    texts: Texts

    def rows(self, keys: Texts) -> NDArray[np.int64]:
        """Which row is about each key; -1: none."""
        if self.asked.keys.same(keys):
            return np.arange(len(keys))
        place = {key: row for row, key in enumerate(self.asked.keys)}
        return np.fromiter((place.get(key, -1) for key in keys), np.int64, len(keys))


def _recall(file: Path | None, asked: Asked) -> list[bytes | None]:
    """What is remembered about each file that is as it was then; None about the others."""
    known: list[bytes | None] = [None] * len(asked.keys)
    memory = _read(file)
    if memory is not None:
        rows = memory.rows(asked.keys)
        same = np.flatnonzero((rows >= 0) & (memory.asked.stamps[rows] == asked.stamps).all(1))
        for index, row in zip(same.tolist(), rows[same].tolist(), strict=True):
            known[index] = memory.texts[row]
    return known


def _read(file: Path | None) -> _Memory | None:
    """A file that is damaged, its checksums tell, is no memory, and no harm."""
    damage = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, NotImplementedError)
    if file is not None:
        with suppress(*damage), np.load(file, allow_pickle=False) as arrays:
            keys, texts = (Texts(arrays[name].tobytes(), arrays[f"{name}_ends"]) for name in ("keys", "texts"))
            if len(keys) == len(texts) > 0:
                return _Memory(Asked(keys, arrays["stamps"].reshape(len(keys), 3)), texts)
    return None


def _write(file: Path, asked: Asked, known: Sequence[bytes | None], keep: NDArray[np.bool_]) -> None:
    """Remember the rows `keep`, and beside them what the file says of others that were not asked about."""
    memory, mine, others = _read(file), np.flatnonzero(keep).tolist(), []
    if memory is not None and not memory.asked.keys.same(asked.keys):
        now = set(asked.keys)
        others = [row for row, key in enumerate(memory.asked.keys) if key not in now]
    keys, stamps, texts = [asked.keys[i] for i in mine], asked.stamps[mine], [known[i] or b"" for i in mine]
    if memory is not None and others:
        keys += [memory.asked.keys[row] for row in others]
        texts += [memory.texts[row] for row in others]
        stamps = np.concatenate([stamps, memory.asked.stamps[others]])
    content, key, text = BytesIO(), Texts.of(keys), Texts.of(texts)
    np.savez(
        content,
        keys=np.frombuffer(key.packed, np.uint8),
        keys_ends=key.ends,
        stamps=stamps,
        texts=np.frombuffer(text.packed, np.uint8),
        texts_ends=text.ends,
    )
    with suppress(OSError):
        write_bytes(file, content.getbuffer(), flush=False)


def _told(found: Iterator[Found], what: str, total: int, *, aloud: bool) -> Iterator[Found]:
    """The same, with words on how far it is where that takes long: a bar on a terminal, elsewhere now and then a line.

    Not `aloud`: the lines go to the log.
    """
    if aloud and sys.stderr.isatty():
        yield from track(found, what, total, transient=True, console=Console(stderr=True))
        return
    last = time.monotonic()
    for done, one in enumerate(found):
        if total >= _MANY and (done == 0 or time.monotonic() - last > _EVERY_SECONDS):
            last, line = time.monotonic(), f"{what}: {done:,} of {total:,} files read, to know them again"
            if aloud:
                print(line, file=sys.stderr, flush=True)
            else:
                _log.info(line)
        yield one


@contextmanager
def alone(file: Path | None) -> Iterator[None]:
    """No other process is in a block of the same `file` meanwhile, where that can be known."""
    with ExitStack() as stack:
        if file is not None:
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(file.with_suffix(".lock")))
                remove_partial(file.parent, of=file.name)
        yield
