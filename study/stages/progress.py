"""What a running stage tells: metrics on disk, a status file, TensorBoard."""

import io
import json
import os
import socket
import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from study.stages.store import RunDir
from training.files import append_bytes, write_text

_STATUS_SECONDS = 0.5  # a status file is written at most this often


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
        name = f"events.out.tfevents.{self.started:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._events = run.path / name

    def __call__(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` after `step` of `total`."""
        # only now is it known where the training goes on, which a recorder is made before
        if self.first is None:
            self._rewind(step)
        row = {"step": step, "total": total, **{k: float(v) for k, v in metrics.items()}}
        append_bytes(self.run.metrics, f"{json.dumps(row)}\n".encode())
        self._append_events(*(Event(step=step, summary=scalar(key, float(value))) for key, value in metrics.items()))
        if time.time() - self._written > _STATUS_SECONDS or step == total:
            self._written = time.time()
            rate = (step - (self.first or 0)) / max(self._written - self.started, 1e-9)
            status = {"label": self.label, "rate": rate, "time": self._written, **row}
            write_text(self.run.status, json.dumps(status), flush=False)

    # PyTorch's SummaryWriter writes in a thread, where a full disk is a traceback, and in an order of its own
    def _append_events(self, *events: Event) -> None:
        buffer = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(buffer).write(event.SerializeToString())
        append_bytes(self._events, buffer.getvalue())

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
        begins = SessionLog(status=SessionLog.START)  # TensorBoard drops what earlier files have from `step` on
        self._append_events(Event(file_version="brain.Event:2"), Event(step=step, session_log=begins))


def time_in_words(seconds: float) -> str:
    """Seconds with a unit: 12 s, 3 min, 2 h, 5 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_in_words(size: float) -> str:
    """Bytes with a unit: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
