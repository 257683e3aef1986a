"""Runs as a table: of a folder, or of a study while it runs."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from study.in_words import size_in_words, time_in_words
from study.monitor import progress_cells
from study.runs_states import DONE, FAILED, QUEUED, RUNNING, WAITING, RunInfo, is_locked, state_of
from study.stages import Stage
from study.store import RunDir, read_json

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


def watch(stages: Sequence[Stage], labels: dict[str, str], study: RunDir, console: Console) -> None:
    """Show a study's stages from what is on the disk until no process is at work on it; once if no one looks on.

    `study`: the study's own directory, in the folder of the runs.
    """
    runs = study.path.parent
    if not console.is_terminal:
        console.print(study_table(stages, labels, runs)[0])
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            at_work = is_locked(study.at_work)  # before the stages: the last one may end in between
            table, active = study_table(stages, labels, runs, rows=console.height - _FRAME)
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
    if rows is not None and len(stages) > rows:
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
