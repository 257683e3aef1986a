"""What a terminal shows of a study: no line too long, no empty table, no rate of zero."""

import io
import json
import re

import pytest
from rich.console import Console

from study.run import monitor as module
from study.run.monitor import Monitor, progress_cells
from study.stages.store import RunDir

LABEL = "fine_tune_detector (seed 0, transfer_then_prune)"


@pytest.fixture
def run(tmp_path):
    found = RunDir(tmp_path / "train_detector-0123456789ab" / "seed0")
    found.path.mkdir(parents=True)
    return found


def shown(run, monkeypatch, *, terminal):
    """The lines of a study of three stages, of which one is done and another ends."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    monkeypatch.setattr(module, "Console", lambda: console)
    with Monitor(3, 1, lambda spent: 120.0) as monitor:
        monitor.start(LABEL, run)
        monitor.finish(LABEL, run, "AP 52.31  AP50 80.12  AP75 55.01")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())


def test_lines_fit_a_terminal_and_no_table_is_left(run, monkeypatch):
    lines = shown(run, monkeypatch, terminal=True).rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("done   fine_tune_detector") for line in lines)
    assert " ".join(lines[-2].split() + lines[-1].split()).endswith("0 s [2/3, about 2 min left]")


def test_a_log_has_a_line_for_each_event(run, monkeypatch):
    start, done = shown(run, monkeypatch, terminal=False).splitlines()
    assert start == f"start  {LABEL}  {run.path}"
    assert done == f"done   {LABEL}  AP 52.31  AP50 80.12  AP75 55.01  0 s  [2/3, about 2 min left]"


@pytest.mark.parametrize(
    ("rate", "speed"), [(0.0, ""), (0.04, "25.0 s/step"), (0.96, "1.0 s/step"), (12.34, "12.3 steps/s")]
)
def test_a_slow_training_has_seconds_a_step(run, rate, speed):
    run.status.write_text(json.dumps({"step": 1, "total": 9, "rate": rate, "loss": 0.5}))
    assert progress_cells(run)[1] == speed
