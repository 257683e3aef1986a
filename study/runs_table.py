"""Runs as a table: of a folder, or of a study while it runs."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from study.monitor import progress_cells
from study.runs_states import DONE, FAILED, QUEUED, RUNNING, RunInfo, state_of
from study.stages import Stage
from study.store import RunDir, read_json

_WATCH_SECONDS = 2.0


def runs_table(found: Sequence[RunInfo], *, title: str = "") -> Table:
    """One row a run: state, size, age."""
    table = Table(title=title or f"{len(found)} runs, {size_in_words(sum(info.size for info in found))}")
    for heading in ("run", "state", "size", "changed"):
        table.add_column(heading, justify="right" if heading in ("size", "changed") else "left", no_wrap=True)
    for info in found:
        table.add_row(info.id, info.state, size_in_words(info.size), f"{age_in_words(info.age)} ago")
    return table


def watch(stages: Sequence[Stage], labels: dict[str, str], runs: Path, console: Console) -> None:
    """Show a study's stages from what is on the disk, until none is at work or can begin; once if no one looks on."""
    if not sys.stdout.isatty():
        console.print(study_table(stages, labels, runs)[0])
        return
    table, active = study_table(stages, labels, runs)
    with Live(table, console=console, auto_refresh=False) as live:
        while active:
            time.sleep(_WATCH_SECONDS)
            table, active = study_table(stages, labels, runs)
            live.update(table, refresh=True)


def study_table(stages: Sequence[Stage], labels: dict[str, str], runs: Path) -> tuple[Table, bool]:
    """A row a stage: state, progress, time left, last metrics; and whether any is at work or in a queue."""
    states = {stage.id: state_of(stage.run(runs)) for stage in stages}
    count = sum(state == DONE for state in states.values())
    table = Table(title=f"{count} of {len(stages)} stages done")
    for heading in ("stage", "seed", "state", "progress", "ETA", "last metrics"):
        table.add_column(heading)
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


def size_in_words(size: float) -> str:
    """Bytes with a unit: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def age_in_words(seconds: float) -> str:
    """Seconds with a unit: 12 s, 3 min, 2 h, 5 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
