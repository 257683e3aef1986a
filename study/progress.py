"""What a running stage tells: metrics on disk, a status file, TensorBoard; and what a person sees of it."""

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from study.store import RunDir, write_text

_STATUS_SECONDS = 0.5  # a status file is written at most this often
_LINE_SECONDS = 15.0  # and a line of a log at most this often per stage


class Recorder:
    """Writes the metrics of one stage: `metrics.jsonl`, TensorBoard events, and a status that others can read.

    A resumed training repeats the steps since its checkpoint: lines from `first_step` on are dropped first.
    """

    def __init__(self, run: RunDir, label: str):
        self.run = run
        self.label = label
        self.started = time.time()
        self.first: int | None = None
        self._written = 0.0
        self._events: SummaryWriter | None = None

    def __call__(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` after `step` of `total`."""
        if self.first is None:
            self._rewind(step)
        row = {"step": step, "total": total, **{k: float(v) for k, v in metrics.items()}}
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        assert self._events is not None
        for key, value in metrics.items():
            self._events.add_scalar(key, value, step)
        if time.time() - self._written > _STATUS_SECONDS or step == total:
            self._written = time.time()
            rate = (step - (self.first or 0)) / max(self._written - self.started, 1e-9)
            status = {"label": self.label, "rate": rate, "time": self._written, **row}
            write_text(self.run.status, json.dumps(status))

    def close(self) -> None:
        """Flush the events."""
        if self._events is not None:
            self._events.close()

    def _rewind(self, step: int) -> None:
        self.first = step
        self.started = time.time()
        kept = []
        if self.run.metrics.is_file():
            for line in self.run.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that a kill cut off
                if row["step"] < step:
                    kept.append(line)
        write_text(self.run.metrics, "".join(f"{line}\n" for line in kept))
        self._events = SummaryWriter(str(self.run.path), purge_step=step)


@dataclass(frozen=True)
class Watched:
    """A stage that a monitor shows."""

    label: str
    run: RunDir


class Monitor:
    """Shows the running stages: a live table on a terminal, plain lines in a log."""

    def __init__(self, total: int, done: int):
        self.total = total
        self.done = done
        self.console = Console()
        self._active: dict[str, Watched] = {}
        self._since: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
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
        self._thread.join()
        if self._live:
            self._live.update(self._table())
            self._live.stop()

    def start(self, watched: Watched) -> None:
        """A stage began."""
        key = str(watched.run.path)
        self._active[key], self._since[key] = watched, time.time()
        self.say(f"start  {watched.label}  {watched.run.path}")

    def finish(self, watched: Watched, outcome: str) -> None:
        """A stage ended; `outcome` is one line."""
        key = str(watched.run.path)
        self._active.pop(key, None)
        self.done += 1
        seconds = time.time() - self._since.pop(key, time.time())
        self.say(f"done   {watched.label}  {outcome}  {seconds:.0f} s  [{self.done}/{self.total}]")

    def say(self, line: str) -> None:
        """A plain line, above the table where there is one."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def _loop(self) -> None:
        while not self._stop.wait(0.5):
            if self._live:
                self._live.update(self._table())
                continue
            for key, watched in list(self._active.items()):
                if time.time() - self._last_line.get(key, self._since.get(key, 0)) >= _LINE_SECONDS:
                    self._last_line[key] = time.time()
                    self.say(f"       {watched.label}  {'  '.join(_cells(watched.run))}")

    def _table(self) -> Table:
        table = Table(title=f"{self.done} of {self.total} stages done")
        for heading in ("stage", "progress", "rate", "ETA", "metrics"):
            table.add_column(heading)
        for watched in list(self._active.values()):
            table.add_row(watched.label, *_cells(watched.run))
        return table


def _cells(run: RunDir) -> Sequence[str]:
    """Progress, rate, time left and the last metrics of a running stage."""
    try:
        status = json.loads(run.status.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return ("preparing", "", "", "")
    rate, left = status["rate"], status["total"] - status["step"]
    eta = f"{left / rate:.0f} s left" if rate > 0 else ""
    hidden = {"label", "rate", "time", "step", "total"}
    shown = [f"{k} {v:.4g}" for k, v in status.items() if k not in hidden][:5]
    return (f"{status['step']}/{status['total']}", f"{rate:.1f} steps/s", eta, "  ".join(shown))
