"""Locks between processes: the operating system's, or where a file system has none a file that names its holder.

The system releases the lock of a process that dies. A file that a dead process left is removed by whoever wants the
lock on the same machine; from another one nobody can tell, so the user is told whom to look for.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from training.files import naming

_log = logging.getLogger(__name__)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file` within the block; who has to wait for it says so. OSError names `file`."""
    lock = FileLock(file)
    with naming(file):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _tell(file, lock)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _tell(file: Path, lock: FileLock) -> None:
    if not hasattr(lock, "pid"):  # which only a file that names its holder has
        _log.info("%s: another process holds this lock; waiting for it", file)
        return
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = file.read_text(encoding="utf-8").splitlines()
    # a process in a container has "?pidns-" and a number behind its machine's name
    holder = f"process {lines[0]} on {lines[1].partition('?')[0]}" if len(lines) > 1 else "a process without a name"
    _log.warning(
        "%s: %s holds this lock, as this file system has none of its own; waiting for it; if that process is gone,"
        " remove this file",
        file,
        holder,
    )
