"""What a person sees of a study: a live table on a terminal, plain lines in a log."""

import json
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from study.report.units import time_in_words
from study.stages.store import RunDir

_LINE_SECONDS = 15.0  # a line of a log at most this often per stage
_LOG_LINES = 8  # of a stage that failed
_HIDDEN = {"label", "rate", "time", "step", "total"}  # of a status, beside its metrics


class Monitor:
    """Shows the stages that this process has under way, and how they end."""

    def __init__(self, total: int, done: int):
        self.total = total
        self.done = done
        self.console = Console()
        self._active: dict[RunDir, str] = {}
        self._since: dict[RunDir, float] = {}
        self._last_line: dict[RunDir, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else None

    def __enter__(self) -> "Monitor":
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()  # before the last table, which it would overwrite
        if self._live:
            self._live.update(self._table())
            self._live.stop()

    def start(self, label: str, run: RunDir) -> None:
        """A stage began."""
        self._active[run], self._since[run] = label, time.time()
        self.say(f"start  {label}  {run.path}")

    def finish(self, label: str, run: RunDir, line: str) -> None:
        """A stage has its result; `line` is about it."""
        self.done += 1
        self.say(f"done   {label}  {line}  {self._end(run):.0f} s  [{self.done}/{self.total}]")

    def fail(self, label: str, run: RunDir, why: str) -> None:
        """A stage ended without a result: its sentence and the end of its log."""
        self.say(f"FAILED {label}  {why}  {self._end(run):.0f} s")
        for line in last_lines(run):
            self.say(f"       {line}")
        self.say(f"       log: {run.log}")

    def say(self, line: str) -> None:
        """A plain line, above the table where there is one."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def _end(self, run: RunDir) -> float:
        """The stage is not shown any more; returns its seconds."""
        self._active.pop(run, None)
        return time.time() - self._since.pop(run, time.time())

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            if self._live:
                self._live.update(self._table())
                continue
            # a copy of the items: the main thread adds and removes stages meanwhile
            for run, label in list(self._active.items()):
                if time.time() - self._last_line.get(run, self._since.get(run, 0)) >= _LINE_SECONDS:
                    self._last_line[run] = time.time()
                    self.say(f"       {label}  {'  '.join(progress_cells(run))}")

    def _table(self) -> Table:
        table = Table(title=f"{self.done} of {self.total} stages done")
        for heading in ("stage", "progress", "rate", "ETA", "metrics"):
            table.add_column(heading)
        for run, label in list(self._active.items()):
            table.add_row(label, *progress_cells(run))
        return table


def progress_cells(run: RunDir) -> Sequence[str]:
    """Progress, rate, time left and the last metrics of a running stage."""
    try:
        status = json.loads(run.status.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return ("preparing", "", "", "")
    rate, left = status["rate"], status["total"] - status["step"]
    eta = f"{time_in_words(left / rate)} left" if rate > 0 else ""
    shown = [f"{k} {v:.4g}" for k, v in status.items() if k not in _HIDDEN][:5]
    return (f"{status['step']}/{status['total']}", f"{rate:.1f} steps/s", eta, "  ".join(shown))


def last_lines(run: RunDir) -> list[str]:
    """The end of a stage's log."""
    try:
        return run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return []
