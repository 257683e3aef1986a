"""What a person sees of a study: a live table on a terminal, plain lines in a log."""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from study.stages.progress import time_in_words
from study.stages.store import RunDir

_LINE_SECONDS = 15.0  # a line of a log at most this often per stage
_LOG_LINES = 8  # of a stage that failed
_HIDDEN = {"label", "rate", "time", "step", "total"}  # of a status, beside its metrics


def _unknown(spent: object) -> None:
    """The time left where nobody foresees it."""


class Monitor:
    """Shows the stages that this process has under way, and how they end.

    `left`: the seconds until all are done, from the seconds that those under way have had.
    """

    def __init__(self, total: int, done: int, left: Callable[[Mapping[RunDir, float]], float | None] = _unknown):
        self.total = total
        self.done = done
        self.console = Console()
        self._left = left
        # the main thread writes these while the other one reads: each change is a single operation on a dict
        self._active: dict[RunDir, str] = {}
        self._since: dict[RunDir, float] = {}
        self._last_line: dict[RunDir, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._live = (
            Live(console=self.console, refresh_per_second=2, transient=True) if self.console.is_terminal else None
        )

    def __enter__(self) -> "Monitor":
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._live.stop()

    def start(self, label: str, run: RunDir) -> None:
        """A stage began."""
        self._active[run], self._since[run] = label, time.time()
        self.say(f"start  {label}  {run.path}")

    def finish(self, label: str, run: RunDir, line: str) -> None:
        """A stage has its result; `line` is about it."""
        self.done += 1
        words = (label, line, f"{self._end(run):.0f} s", f"[{self._state()}]")
        self.say(f"done   {'  '.join(word for word in words if word)}")

    def fail(self, label: str, run: RunDir, why: str) -> None:
        """A stage ended without a result: its sentence and the end of its log."""
        self.say(f"FAILED {label}  {why}  {self._end(run):.0f} s")
        for line in last_lines(run):
            self.say(f"       {line}")
        self.say(f"       log: {run.log}")

    def say(self, line: str) -> None:
        """A plain line, above the table where there is one; on a terminal no longer than that is wide."""
        if self._live and not line.startswith(" "):  # of a log it stays as it is
            line = fill(line, self.console.width - 1, subsequent_indent=" " * 7, break_on_hyphens=False)
        # labels and errors may hold brackets, which rich would read as markup
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def seconds(self, run: RunDir) -> float:
        """Since the stage began."""
        return time.time() - self._since.get(run, time.time())

    def _state(self) -> str:
        """How many stages are done, and about how long the others take."""
        now = time.time()
        left = self._left({run: now - since for run, since in list(self._since.items())})
        return f"{self.done}/{self.total}" + (f", about {time_in_words(left)} left" if left else "")

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
                    self.say(f"       {label}  {'  '.join(cell for cell in progress_cells(run) if cell)}")

    def _table(self) -> Table:
        table = Table(title=f"stages done: {self._state()}")
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
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step" if rate > 0 else ""
    return (f"{status['step']}/{status['total']}", speed, eta, "  ".join(shown))


def last_lines(run: RunDir) -> list[str]:
    """The end of a stage's log."""
    try:
        return run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return []
