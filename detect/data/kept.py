"""What takes long to read, kept as a file of arrays: made once, mapped into memory by every process after.

Such a file is a line with the SHA-256 of all that follows, a line of JSON, and the arrays' bytes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.device import give_back_freed_memory
from training.files import Json, canonical, remove_partial, write_bytes
from training.locks import locked

_ALIGNED = 64  # bytes at whose multiples arrays begin
_SUM = 65  # the first line


@dataclass(frozen=True)
class Kept:
    """JSON `about` the arrays, and their bytes by name, uint8."""

    about: Json
    arrays: Mapping[str, NDArray[np.uint8]]


def kept(folder: Path, key: object, make: Callable[[], tuple[Kept, bool]]) -> Kept:
    """What `make` gives, from the file of `key` (JSON) in `folder` where there is one; it also says whether that lasts.

    Of processes that ask at once one makes it. A file that is damaged, or another key's, is made anew; where none can
    be written each process makes its own.
    """
    name = canonical(key)
    file = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.arrays"
    found = _read(file, name)
    if found is not None:
        return found
    with ExitStack() as stack:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(file.with_suffix(".lock")))
            remove_partial(folder, of=file.name)
            found = _read(file, name)  # another process may have made it while this one waited
        if found is not None:
            return found
        made, lasts = make()
        give_back_freed_memory()  # of a large file more than a process has otherwise, and for as long as it lives
        if lasts:
            with suppress(OSError):
                _write(file, name, made)
        return _read(file, name) or made


def _read(file: Path, key: str) -> Kept | None:
    """What the file holds; None where it is not there, not whole or of another key."""
    try:
        with file.open("rb") as opened:
            if opened.readline(_SUM).strip() != hashlib.file_digest(opened, "sha256").hexdigest().encode():
                return None
            opened.seek(_SUM)
            line = opened.readline()
            content = np.asarray(np.memmap(opened, np.uint8, "r"))[_SUM + len(line) :]
        head = json.loads(line)
        if head["key"] != key:
            return None
        return Kept(head["about"], {name: content[start:end] for name, (start, end) in head["places"].items()})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, key: str, made: Kept) -> None:
    parts: list[bytes | memoryview] = []
    places, end = {}, 0
    for name, array in made.arrays.items():
        gap = -end % _ALIGNED
        places[name] = (end + gap, end + gap + array.nbytes)
        parts += [bytes(gap), array.data if array.size else b""]
        end += gap + array.nbytes
    line = json.dumps({"key": key, "about": made.about, "places": places}).encode()
    line += b" " * (-(_SUM + len(line) + 1) % _ALIGNED) + b"\n"
    digest = hashlib.sha256(line)
    for part in parts:
        digest.update(part)
    write_bytes(file, digest.hexdigest().encode() + b"\n", line, *parts)
