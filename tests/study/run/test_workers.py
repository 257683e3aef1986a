"""Worker processes: the same bits as in one process; one that dies takes only its stage with it."""

import multiprocessing
import os
import signal
import sys

import pytest
import torch
from support.tiny_classification import tiny

from study.plan.pipelines import all_stages
from study.run.executors.workers import visible_devices
from study.run.study import run_study
from study.stages.progress import Recorder
from training.device import deterministic_algorithms


def run(runs, **machine):
    changes = {f"machine.{key}": value for key, value in machine.items()}
    study = {"pipelines": ["unpruned", "fine_tune"], "seeds": [0, 1], "classifier.train.epochs": 20}
    config, routes = tiny({**study, **changes})
    _, outcome = run_study(config, runs / "tiny.yaml", routes, runs)
    return all_stages(routes), outcome


@pytest.mark.slow
def test_workers_give_the_same_bits_and_one_that_is_killed_takes_only_its_stage(tmp_path, monkeypatch):
    alone, together = tmp_path / "alone", tmp_path / "together"
    stages, outcome = run(alone)
    assert outcome.complete
    victim = stages[0].run(together)

    record = Recorder.__call__

    def killed_when_it_trains(self, *report):
        if self.run == victim and victim.checkpoint.is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, *report)

    with monkeypatch.context() as patched:  # which forked processes keep
        patched.setattr(Recorder, "__call__", killed_when_it_trains)
        fork = multiprocessing.get_context("fork")
        patched.setattr(sys.modules[visible_devices.__module__], "get_context", lambda _: fork)
        _, outcome = run(together, jobs=2)
    assert list(outcome.failed) == [stages[0].id]
    assert outcome.failed[stages[0].id].startswith("its process died")
    seeds = {stage.id: stage.seed for stage in stages}
    done = [id_ for id_ in outcome.done if not id_.startswith("latency-")]  # of the networks that there are
    assert {seeds[id_] for id_ in done} == {1} and {seeds[id_] for id_ in outcome.blocked} == {0}
    _, outcome = run(together, jobs=2)
    assert outcome.complete
    assert "going on from" in victim.log.read_text()
    for stage in stages:
        assert stage.run(alone).weights.read_bytes() == stage.run(together).weights.read_bytes(), stage.id


@pytest.mark.parametrize(
    ("wanted", "device", "on"),
    [(None, "cpu", True), (None, "cuda", False), (True, "cuda", True), (False, "cpu", False)],
)
def test_deterministic_by_default_on_the_cpu_alone(wanted, device, on, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(wanted, device):
        assert torch.are_deterministic_algorithms_enabled() is on
        assert torch.is_deterministic_algorithms_warn_only_enabled() is (on and device == "cuda") or not on
    assert not torch.are_deterministic_algorithms_enabled()
