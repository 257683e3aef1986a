"""Twenty SIGKILLs at random moments, ten of them inside writes; then the study ends as if nothing had been."""

import csv
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from faulty_process import STUDY, study
from tiny_classification import tiny

from study.run import all_stages
from study.runs_verify import verify_runs

NOT_TIMES = ("latency_ms", "seconds")
KILLS = 20


def table(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in NOT_TIMES} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the server, which imports once for all processes:
    context.set_forkserver_preload(["faulty_process"])  # importing takes longer than the study
    wait_for(context.Process(target=os.getpid))
    start = time.monotonic()
    assert wait_for(context.Process(target=study, args=(str(whole),))) == 0
    seconds = time.monotonic() - start
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        if kills % 2:
            process = context.Process(target=study, args=(str(killed), rng.randint(1, 12)))
            kills += wait_for(process) == -signal.SIGKILL
        else:
            process = context.Process(target=study, args=(str(killed),))
            kills += wait_for(process, kill_after=rng.uniform(0, 0.12 * seconds)) == -signal.SIGKILL
        assert kills > 0
    assert wait_for(context.Process(target=study, args=(str(killed),))) == 0
    assert table(killed / "tiny") == table(whole / "tiny")
    _, routes = tiny(STUDY)
    for stage in all_stages(routes):
        one, two = stage.run(whole), stage.run(killed)
        assert one.weights.read_bytes() == two.weights.read_bytes(), stage.id
        assert starts_over(two.log.read_text()) == 0, stage.id
    assert verify_runs(killed) == (len(all_stages(routes)), [])
    assert not [*killed.rglob("*.partial"), *killed.rglob("*.pt")]


def wait_for(process, *, kill_after: float | None = None) -> int:
    """The exit code of a process, which SIGKILL ends after some seconds if it still runs."""
    process.start()
    process.join(kill_after)
    if kill_after is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def starts_over(log: str) -> int:
    """How often a process trained from the start although one before it had gone on from a checkpoint."""
    attempts = re.split(r"started by process", log)[1:]
    resumed = ["going on from" in attempt for attempt in attempts]
    first = resumed.index(True) if True in resumed else len(resumed)
    return sum("the training begins" in attempt for attempt in attempts[first:]) + log.count("starts over")
