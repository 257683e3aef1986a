"""Remove runs that no study of their folder uses."""

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from study.run import STUDY_FILE, all_stages, load_written_study
from study.runs_states import RunInfo, list_runs
from study.store import RunDir


def unused_runs(runs: Path) -> list[RunInfo]:
    """The runs that no study needs; ValueError if a study cannot be read, since then nobody knows what it needs."""
    needed: set[str] = set()
    for file in sorted(runs.glob(f"*/{STUDY_FILE}")):
        try:
            _, _, routes = load_written_study(file.parent)
        except ValueError as error:
            raise ValueError(f"{file}: what this study needs cannot be told, so nothing is removed: {error}") from error
        needed |= {stage.id for stage in all_stages(routes)}
    return [info for info in list_runs(runs) if info.id not in needed]


def remove_runs(found: list[RunInfo]) -> list[RunInfo]:
    """Remove these runs, but for those that a process works on; returns the removed."""
    return [info for info in found if _remove(info.run)]


def _remove(run: RunDir) -> bool:
    try:
        with FileLock(run.lock, timeout=0):
            run.result.unlink(missing_ok=True)  # first: a run that is half removed is not a finished one
            shutil.rmtree(run.path)
    except Timeout:
        return False
    if not any(run.path.parent.iterdir()):
        run.path.parent.rmdir()
    return True
