"""The runs of a folder as they are on disk: what state each is in, how large and how old it is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from study.stages import VERSIONS
from study.store import RunDir

DONE, RUNNING, QUEUED, FAILED, STOPPED, WAITING, DAMAGED = "done running queued failed stopped waiting damaged".split()


@dataclass(frozen=True)
class RunInfo:
    """A run directory below `runs`; bytes on disk, seconds since the last change of a file in it."""

    id: str
    run: RunDir
    state: str
    size: int
    age: float


def list_runs(runs: Path) -> list[RunInfo]:
    """Every run directory of the folder, in order of their names; ValueError if there is no such folder."""
    return [_info(folder, runs) for folder in run_folders(runs)]


def run_folders(runs: Path) -> Iterator[Path]:
    """`<kind>-<hash>/seed<k>` below `runs`, in order of their names; ValueError if there is no such folder."""
    if not runs.is_dir():
        raise ValueError(f"{runs}: there is no such folder of runs")
    for folder in sorted(runs.glob("*-*/seed*")):
        if folder.is_dir() and folder.parent.name.rpartition("-")[0] in VERSIONS:
            yield folder


def state_of(run: RunDir) -> str:
    """`done`, `damaged` (its result is not as it was written), `running`, `failed`, `queued`, `stopped`, `waiting`."""
    if run.done:
        try:
            run.read_result()
        except ValueError:
            return DAMAGED
        return DONE
    if is_locked(run.lock):
        return RUNNING
    for file, state in ((run.failure, FAILED), (run.job, QUEUED), (run.log, STOPPED)):
        if file.is_file():
            return state
    return WAITING


def is_locked(lock: Path) -> bool:
    """Does a process hold this lock, of a run directory or of a study?"""
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _info(folder: Path, runs: Path) -> RunInfo:
    run = RunDir(folder)
    files = [stat for file in folder.rglob("*") if (stat := _stat(file)) is not None]
    newest = max((changed for _, changed in files), default=folder.stat().st_mtime)
    size = sum(length for length, _ in files)
    return RunInfo(str(folder.relative_to(runs)), run, state_of(run), size, max(0.0, time.time() - newest))


def _stat(file: Path) -> tuple[int, float] | None:
    """Bytes and time of change; None of what is no file, or is gone since it was listed."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return None
    return None if file.is_dir() else (found.st_size, found.st_mtime)
