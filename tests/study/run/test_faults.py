"""SIGKILLs at random moments, half of them inside writes; then the study ends as if nothing had been."""

import csv
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from support.faulty_process import STUDIES, run_to_the_end

from study.plan.pipelines import all_stages
from study.report.routes import LATENCY_FROM, LATENCY_TO
from study.run.housekeeping import verify_runs

NOT_TIMES = ("latency_ms", LATENCY_FROM, LATENCY_TO, "seconds", "prune_seconds")


def table(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in NOT_TIMES} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(
    # random kills come within a share of the time that all takes: of what is left, an attempt should do a part
    ("name", "kills", "share", "jobs"),
    [("classifiers", 20, 0.12, 1), ("detectors", 10, 0.4, 2)],
)
def test_kills_change_nothing(tmp_path, monkeypatch, name, kills, share, jobs):
    """The last attempt runs its stages in `jobs` processes; all before, in one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the server, which imports once for all processes:
    context.set_forkserver_preload(["support.faulty_process"])  # importing takes longer than the study

    def attempt(runs, *arguments):
        return context.Process(target=run_to_the_end, args=(name, str(runs), *arguments))

    wait_for(context.Process(target=os.getpid))
    start = time.monotonic()
    assert wait_for(attempt(whole)) == 0
    seconds = time.monotonic() - start
    rng, done = random.Random(0), 0
    while done < kills:
        if done % 2:
            code = wait_for(attempt(killed, rng.randint(1, 12)))
        else:
            code = wait_for(attempt(killed), kill_after=rng.uniform(0, share * seconds))
        assert code in (0, -signal.SIGKILL)
        done += code == -signal.SIGKILL
        if code == 0:  # quicker than the first one was: what is done cannot be killed
            shutil.rmtree(killed)
    assert wait_for(attempt(killed, None, jobs)) == 0
    assert table(killed / "tiny") == table(whole / "tiny")
    _, routes = STUDIES[name]()
    for stage in all_stages(routes):
        one, two = stage.run(whole), stage.run(killed)
        if one.weights.is_file():
            assert one.weights.read_bytes() == two.weights.read_bytes(), stage.id
        assert starts_over(two.log.read_text()) == 0, stage.id
    assert verify_runs(killed) == (len(all_stages(routes)) + 1, [])  # and the one that times the networks
    assert not list(killed.rglob("*.pt"))
    assert {file.name for file in killed.rglob(".*") if file.is_file()} == {".lock", ".at_work"}


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
