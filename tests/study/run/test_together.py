"""Several processes a stage in a study, as GPUs have them: here they compute on the CPU."""

import os
import signal
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import tiny_classification, tiny_study

from study.config.sections import Machine, Slurm
from study.plan.checks import check_processes
from study.plan.latency import read_timing
from study.plan.pipelines import all_stages
from study.run.executors import slurm
from study.run.executors.workers import _Workers, visible_devices
from study.run.study import run_study
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.device import jobs_that_fit
from training.files import read_json
from training.stopping import Stopped, stop_on_signals
from training.strict_yaml import ConfigError

CHANGES = {"pipelines": ["unpruned"], "classifier.train.epochs": 60, "machine.gpus_per_stage": 2}


def run(runs, **changes):
    config, routes = tiny_classification.tiny({**CHANGES, **changes})
    (trained,) = all_stages(routes)
    return trained.run(runs), lambda: run_study(config, Path("tiny.yaml"), routes, runs)[1]


def when_it_trains(run, do):
    """Call `do` in a thread once there is a checkpoint."""

    def wait():
        while not run.checkpoint.is_file():
            time.sleep(0.01)
        do()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.slow
def test_a_detection_study_of_two_processes_a_stage(tmp_path):
    config, routes = tiny_study.tiny("pipelines=[unpruned]", "machine.gpus_per_stage=2")
    out, outcome = run_study(config, tiny_study.DIGITS, routes, tmp_path)
    assert outcome.complete, outcome
    for each in all_stages(routes):
        result = each.run(tmp_path).read_result()
        assert result["processes"] == 2, each.id
        assert each.run(tmp_path).metrics.is_file() == each.kind.startswith("train_")
    classify = routes[0].stages[0].run(tmp_path).read_result()
    assert classify["images_seen"] == 2 * 48 and classify["metrics"]["test_images"] == 20
    timed = read_timing(RunDir(out)).stage.run(tmp_path).read_result()
    assert (out / "report.html").is_file() and "processes" not in timed


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_stage_and_a_signal_stops_all_which_go_on(tmp_path):
    trained, study = run(tmp_path)
    when_it_trains(trained, lambda: os.kill(active_children()[0].pid, signal.SIGKILL))
    outcome = study()
    assert "one of its 2 processes died" in next(iter(outcome.failed.values()))
    assert not active_children()
    trained.checkpoint.unlink()
    when_it_trains(trained, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped), stop_on_signals():
        study()
    assert not active_children() and trained.checkpoint.is_file() and not trained.failure.is_file()
    assert study().complete
    assert "going on from" in trained.log.read_text()
    again, whole = run(tmp_path / "whole")
    assert whole().complete
    assert again.weights.read_bytes() == trained.weights.read_bytes()


@pytest.mark.slow
def test_what_a_process_raises_is_the_stages_failure(tmp_path):
    trained, study = run(tmp_path, **{"classifier.train.lr": 1e30})
    (why,) = study().failed.values()
    assert "loss" in why and "Traceback" not in why
    assert read_json(trained.failure)["diverged"] and "Traceback" in trained.log.read_text()


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, monkeypatch):
    _, study = run(tmp_path, **{"machine.gpus_per_stage": 4096})
    with pytest.raises(ConfigError, match=r"machine\.gpus_per_stage: 4096: this machine has \d+ CPU cores"):
        study()
    assert not list(tmp_path.glob("train_*"))
    detector = next(s for s in all_stages(tiny_study.tiny("detector.train.batch_size=3")[1]) if "model" in s.settings)
    monkeypatch.setattr("study.plan.checks.usable_cores", lambda: 8)
    with pytest.raises(ValueError, match="a detector's batch_size of 3 is no multiple of it"):
        check_processes([detector], Machine(gpus_per_stage=2))
    check_processes([detector], Machine(gpus_per_stage=3))
    classifier = detector.parents[0]
    with pytest.raises(ValueError, match="a classifier's batch_size of 2 has not an image for each"):
        settings = {**classifier.settings, "train": {**classifier.settings["train"], "batch_size": 2}}
        check_processes([Stage("train_classifier", settings, (), 0)], Machine(gpus_per_stage=3))
    with pytest.raises(ValueError, match=r"machine\.device: cuda:1 is one GPU; take auto"):
        check_processes([], Machine(gpus_per_stage=2, device="cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="this machine has 2 GPUs"):
        check_processes([], Machine(gpus_per_stage=3))
    check_processes([], Machine(gpus_per_stage=3, executor="slurm"))


def test_gpus_are_dealt_out_to_jobs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    assert [jobs_that_fit("auto", 0, each) for each in (1, 2, 5, 8)] == [5, 2, 1, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,7,9")
    given = []
    module = sys.modules[visible_devices.__module__]  # the package has a function of its name
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_, initargs, **__: given.append(initargs[1]))
    pool = _Workers(Machine(jobs=3, gpus_per_stage=2))
    for slot in range(3):
        pool._pool(slot)
    assert given == ["3,4", "5,7", "3,4"]


@pytest.mark.parametrize(("gpus", "kind", "asked"), [(1, "train_detector", 4), (1, "prune", 1), (0, "evaluate", None)])
def test_a_slurm_job_asks_for_the_gpus_of_its_stage(tmp_path, gpus, kind, asked):
    machine = Machine(executor="slurm", slurm=Slurm(gpus=gpus), gpus_per_stage=4)
    task = SimpleNamespace(stage=SimpleNamespace(kind=kind, hash="abc", seed=0), machine=machine)
    assert slurm.parameters(machine.slurm, task).get("gpus_per_node") == asked
