"""Runs as a table: of a folder, or of a study while it runs."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pruning.errors import Refusal
from study.run.monitor import progress_cells
from study.run.study import STUDY_FILE
from study.stages.progress import size_in_words, time_in_words
from study.stages.stage import KINDS, Stage
from study.stages.store import RunDir
from training.files import read_json

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
        raise Refusal(f"{runs}: there is no such folder of runs")
    # the folder has those of studies, data and caches as well, whose names are no kind of stage
    for folder in sorted(runs.glob("*-*/seed*")):
        if folder.is_dir() and folder.parent.name.rpartition("-")[0] in KINDS:
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
    # Nobody is at work on it. The latest word counts: a failure is recorded after a log was begun, and removed when the
    # run is tried again; a job file is there from the moment the job is queued.
    for file, state in ((run.failure, FAILED), (run.job, QUEUED), (run.log, STOPPED)):
        if file.is_file():
            return state
    return WAITING


def is_locked(lock: Path) -> bool:
    """Does a process hold this lock, of a run directory or of a study?"""
    if not lock.is_file():
        return False
    # Taken for an instant to see whether that can be done; whoever wants it just then waits (`locked`,
    # `_seen_at_work`).
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
    # not below 0: the clock of a file server may be ahead of this one
    return RunInfo(str(folder.relative_to(runs)), run, state_of(run), size, max(0.0, time.time() - newest))


def _stat(file: Path) -> tuple[int, float] | None:
    """Bytes and time of change; None of what is no file, or is gone since it was listed."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return None
    return None if file.is_dir() else (found.st_size, found.st_mtime)


_WATCH_SECONDS = 2.0
_FRAME = 6  # lines of a table beside its rows, and the one below it


def runs_table(found: Sequence[RunInfo], *, title: str = "") -> Table:
    """One row a run: state, size, age."""
    table = Table(title=title or f"{len(found)} runs, {size_in_words(sum(info.size for info in found))}")
    for heading in ("run", "state", "size", "changed"):
        table.add_column(heading, justify="right" if heading in ("size", "changed") else "left", no_wrap=True)
    for info in found:
        table.add_row(info.id, info.state, size_in_words(info.size), f"{time_in_words(info.age)} ago")
    return table


def check_begun(study: RunDir) -> None:
    """ValueError for a study that has not begun: where its stages are there, they are those of another one."""
    runs = study.path.parent
    if not (study.path / STUDY_FILE).is_file() and not is_locked(study.at_work):
        there = sorted(file.parent.name for file in runs.glob(f"*/{STUDY_FILE}"))
        raise Refusal(
            f"{study.path}: no study of this name has begun there; studies in {runs}: {', '.join(there) or 'none'}"
        )


def watch(look: Callable[[], tuple[Sequence[Stage], dict[str, str]]], study: RunDir, console: Console) -> None:
    """Show a study's stages from what is on the disk until no process is at work on it; once if no one looks on.

    `look`: the stages as far as they are known, and their labels. `study`: the study's own directory, in the folder of
    the runs.
    """
    runs = study.path.parent
    if not console.is_terminal:
        console.print(study_table(*look(), runs)[0])
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            at_work = is_locked(study.at_work)  # before the stages: the last one may end in between
            table, active = study_table(*look(), runs, rows=console.height - _FRAME)
            live.update(table, refresh=True)
            if not at_work and not active:
                break
            time.sleep(_WATCH_SECONDS)
    console.print("No process is at work on this study.", highlight=False)


def study_table(
    stages: Sequence[Stage], labels: dict[str, str], runs: Path, *, rows: int | None = None
) -> tuple[Table, bool]:
    """A row a stage: state, progress, time left, last metrics; and whether any is at work or in a queue.

    With more stages than `rows` those are left out that are done, or wait for others.
    """
    states = {stage.id: state_of(stage.run(runs)) for stage in stages}
    counts = Counter(states.values())
    others = "".join(f", {count} {state}" for state, count in counts.items() if state != DONE)
    table = Table(title=f"{counts[DONE]} of {len(stages)} stages done{others}")
    for heading in ("stage", "seed", "state", "progress", "ETA", "last metrics"):
        whole = heading in ("seed", "state", "progress", "ETA")
        table.add_column(heading, no_wrap=whole, overflow="fold")
    if rows is not None and len(stages) > rows:  # a live table that is longer than the screen does not scroll
        stages = [stage for stage in stages if states[stage.id] not in (DONE, WAITING)][:rows]
    for stage in stages:
        progress, eta, last = _details(stage.run(runs), states[stage.id])
        table.add_row(escape(labels[stage.id]), str(stage.seed), states[stage.id], progress, eta, escape(last))
    return table, any(state in (RUNNING, QUEUED) for state in states.values())


def _details(run: RunDir, state: str) -> tuple[str, str, str]:
    """Progress, time left and the last metrics, or the sentence of a failure."""
    if state == DONE:
        metrics = run.read_result()["metrics"]
        return "", "", "  ".join(f"{k} {v:.4g}" for k, v in list(metrics.items())[:3] if isinstance(v, float))
    if state == FAILED:
        return "", "", str(read_json(run.failure).get("error", ""))
    if state != RUNNING:
        return "", "", ""
    progress, _, eta, last = progress_cells(run)
    return progress, eta, last
