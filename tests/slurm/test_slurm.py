"""A study as jobs of a real Slurm on this machine: a job that is told its time is over, one that is cancelled."""

import json
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from support.one_node import missing_packages, slurm_cluster
from support.tiny_classification import tiny

from study.plan.pipelines import all_stages
from study.run.study import run_study
from study.stages.store import RunDir

_MISSING = missing_packages()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(_MISSING),
        reason=f"Slurm is not here: sudo apt-get install --no-install-recommends {' '.join(_MISSING)}",
    ),
]
STUDY = {
    "pipelines": ["unpruned", "fine_tune"],
    "classifier.train.epochs": 200,  # 600 steps: long enough to be disturbed twice
    "machine.checkpoint_minutes": 0,
}
SLURM = {"time_minutes": 10, "poll_seconds": 1.0, "signal_seconds": 30}


def run(runs, changes):
    config, routes = tiny({**STUDY, **changes})
    out, outcome = run_study(config, runs / "tiny.yaml", routes, runs)
    return all_stages(routes), out, outcome


def test_jobs_that_are_stopped_go_on_and_end_with_the_same_bits(tmp_path):
    stages, _, outcome = run(tmp_path / "here", {})
    assert outcome.complete
    there = tmp_path / "there"
    classify = stages[0].run(there)
    found = []
    (tmp_path / "slurm").mkdir()
    with slurm_cluster(tmp_path / "slurm"):
        as_jobs = {"machine.executor": "slurm", "machine.slurm": SLURM}
        study = threading.Thread(target=lambda: found.append(run(there, as_jobs)), daemon=True)
        study.start()
        step = wait_for(lambda: step_of(classify), "the first job to train")
        first = json.loads(classify.job.read_text())["job"]
        subprocess.run(["scancel", "--signal=USR2", f"{first}.0"], check=True)  # as at the end of a job's time
        wait_for(lambda: log_of(classify).count("going on from"), "the job to be queued again")
        wait_for(lambda: step_of(classify) > step + 20, "the job to get further")
        assert json.loads(classify.job.read_text())["job"] == first
        subprocess.run(["scancel", first], check=True)
        wait_for(lambda: log_of(classify).count("going on from") == 2, "another job to go on")
        study.join(timeout=900)
        assert found, "the study did not end"
    _, out, outcome = found[0]
    assert outcome.complete, outcome
    log = log_of(classify)
    assert "stopped by SIGUSR2" in log and "stopped by SIGTERM" in log
    assert log.count("started by process") == 3
    for stage in stages:
        here, job = stage.run(tmp_path / "here"), stage.run(there)
        assert here.weights.read_bytes() == job.weights.read_bytes(), stage.id
    assert (out / "comparison.csv").read_text().count("\n") == 3
    assert not list(there.rglob("job.json"))


def step_of(run: RunDir) -> int:
    try:
        return json.loads(run.status.read_text())["step"]
    except (OSError, json.JSONDecodeError):
        return 0


def log_of(run: RunDir) -> str:
    return run.log.read_text() if run.log.is_file() else ""


def wait_for(condition: Callable[[], int], what: str, seconds: float = 400) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")
