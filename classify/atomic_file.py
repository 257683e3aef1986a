"""Files that are the old one or the new one, never a part: written beside, flushed to the disk, renamed."""

import os
import tempfile
from pathlib import Path

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
