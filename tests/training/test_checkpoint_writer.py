"""Checkpoints written beside a training: of the step they are named by, one at a time, whole after any kill."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from support import small_training
from support.told import told

from classify.train import train_classifier
from training import checkpoint_writer
from training.checkpoint import last_checkpoint, previous_checkpoint, save_checkpoint
from training.checkpoint_writer import CheckpointWriter
from training.stopping import Stopped

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "c.pt")
SAYS_SO = pytest.raises(OSError, match=re.escape("No space left on device: 'c.pt'"))


class Held:
    """`save_checkpoint` that does not begin before it is let go; counts its calls, and those under way."""

    def __init__(self):
        self.let_go, self.calls, self.most, self._now = threading.Event(), 0, 0, 0

    def __call__(self, path, state):
        self.calls += 1
        self._now += 1
        self.most = max(self.most, self._now)
        assert self.let_go.wait(10)
        save_checkpoint(path, state)
        self._now -= 1


@pytest.fixture
def held(monkeypatch):
    slow = Held()
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slow)
    return slow


def trained_state(model, optimizer, step):
    return {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "list": [step, (step,)]}


def test_what_is_written_is_the_state_of_its_step_though_training_goes_on(tmp_path, held):
    path, model = tmp_path / "c.pt", torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step():
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()

    step()
    with CheckpointWriter(path) as writer:
        state = trained_state(model, optimizer, 1)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        momentum = optimizer.state[model[0].weight]["momentum_buffer"].clone()
        writer.save(state)
        step()
        optimizer.param_groups[0]["lr"] = 7.0
        state["list"].append("later")
        held.let_go.set()
    found = last_checkpoint(path, required=["step"])
    assert found["step"] == 1 and found["list"] == [1, (1,)]
    assert all(torch.equal(found["model"][name], value) for name, value in before.items())
    assert not torch.equal(before["0.weight"], model[0].weight)
    assert torch.equal(found["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert found["model"]._metadata == model.state_dict()._metadata


def test_one_is_written_at_a_time_and_the_newest_two_are_kept(tmp_path, held):
    path = tmp_path / "c.pt"
    with CheckpointWriter(path) as writer:
        writer.save({"step": 1})
        threading.Timer(0.2, held.let_go.set).start()
        for step in (2, 3):
            writer.save({"step": step})
    assert (held.calls, held.most) == (3, 1)
    assert last_checkpoint(path, required=["step"]) == {"step": 3}
    assert last_checkpoint(previous_checkpoint(path), required=["step"]) == {"step": 2}


def fails(path, state):
    raise FULL


def until_it_failed(writer):
    while writer._thread.is_alive():
        time.sleep(0.01)


def test_a_full_disk_is_told_by_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fails)
    with SAYS_SO, CheckpointWriter(tmp_path / "c.pt") as writer:
        writer.save({"step": 1})
        until_it_failed(writer)
        writer.check()
        pytest.fail("the next step went on")


@pytest.mark.parametrize("ends_by", [None, Stopped(signal.SIGTERM)], ids=["itself", "a signal"])
def test_a_full_disk_is_told_at_the_end(tmp_path, monkeypatch, ends_by):
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fails)
    with SAYS_SO, CheckpointWriter(tmp_path / "c.pt") as writer:
        writer.save({"step": 1})
        if ends_by is not None:
            raise ends_by


def test_what_a_training_failed_of_is_told_before_a_full_disk(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fails)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(FloatingPointError, match="the loss is nan"),
        CheckpointWriter(tmp_path / "c.pt") as writer,
    ):
        writer.save({"step": 1})
        raise FloatingPointError("step 2: the loss is nan")
    assert "No space left on device: 'c.pt'" in caplog.text


def test_a_training_ends_of_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    """At the step after, or the one after that: within the training, not at its end."""
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", fails)
    seen = []
    asked = told(small_training.SETTINGS, checkpoint_minutes=0, report_every=1)
    with SAYS_SO:
        train_classifier(
            small_training.network(),
            small_training.images(),
            **asked,
            checkpoint=tmp_path / "c.pt",
            report=lambda step, total, metrics: seen.append(step),
        )
    assert seen in ([1], [1, 2])


WRITES_FOR_EVER = """
import sys, torch
from pathlib import Path
from training.checkpoint_writer import CheckpointWriter

weights = torch.zeros(2_000_000)
with CheckpointWriter(Path(sys.argv[1])) as writer:
    for step in range(1, 10_000):
        weights.fill_(step)
        writer.save({"step": step, "weights": weights})
        print(step, flush=True)
"""


@pytest.mark.parametrize("after", [0.0, 0.05, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.013, 0.11))])
def test_a_kill_at_any_time_leaves_a_whole_checkpoint(tmp_path, after):
    path = tmp_path / "c.pt"
    process = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
    begun = [int(process.stdout.readline()) for _ in range(3)][-1]  # the first one is written by then
    time.sleep(after)
    process.kill()
    begun = max([begun, *(int(line) for line in process.stdout.read().splitlines() if line)])
    assert process.wait() == -signal.SIGKILL
    found = last_checkpoint(path, required=["step", "weights"])
    assert begun - 2 <= found["step"] <= begun + 1
    assert bool((found["weights"] == found["step"]).all())
