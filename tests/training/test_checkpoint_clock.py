"""Checkpoints by the clock, which the tests set: when one is due, in both trainings."""

import pytest
from support import small_training
from support.pretended_clock import a_minute_a_step
from support.tiny_detector import make_detector, settings, two_squares
from support.told import told

from classify.train import train_classifier
from detect.train import train_detector
from study.config.sections import Machine
from training import checkpoint, checkpoint_writer
from training.checkpoint import CheckpointClock


def at(monkeypatch, seconds):
    monkeypatch.setattr(checkpoint, "monotonic", lambda: seconds)


def test_a_checkpoint_is_due_so_many_minutes_after_the_last_one(monkeypatch):
    at(monkeypatch, 1000.0)
    clock = CheckpointClock(10)
    for seconds, due in ((1000, False), (1599.9, False), (1600, True), (5000, True)):
        at(monkeypatch, seconds)
        assert clock.due("cpu") is due
    clock.restart()
    for seconds, due in ((5599, False), (5600, True)):
        at(monkeypatch, seconds)
        assert clock.due("cpu") is due


def test_without_minutes_one_is_due_after_each_step(monkeypatch):
    at(monkeypatch, 3.0)
    assert CheckpointClock(0).due("cpu")


def test_ten_minutes_unless_said_otherwise():
    assert Machine().checkpoint_minutes == 10
    assert Machine(checkpoint_minutes=0.5).checkpoint_minutes == 0.5
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Machine(checkpoint_minutes=-1)


@pytest.mark.parametrize(
    ("minutes", "pace", "steps"), [(4, 1, [4, 8, 9]), (10, 3, [4, 8, 9]), (10, 1, [9]), (9, 1, [9])]
)
def test_a_classifier_is_saved_by_the_clock_and_at_the_end(tmp_path, monkeypatch, minutes, pace, steps):
    saved = []
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", lambda path, state: saved.append(state["step"]))
    asked = told(small_training.SETTINGS, checkpoint_minutes=minutes)
    with a_minute_a_step(pace):
        train_classifier(small_training.network(), small_training.images(), **asked, checkpoint=tmp_path / "c.pt")
    assert saved == steps


@pytest.mark.parametrize(("minutes", "pace", "steps"), [(2, 1, [2, 4, 5]), (10, 6, [2, 4, 5]), (10, 1, [5])])
def test_a_detector_is_saved_by_the_clock_and_at_the_end(tmp_path, monkeypatch, minutes, pace, steps):
    saved = []
    monkeypatch.setattr(
        "training.checkpoint_writer.save_checkpoint", lambda path, state: saved.append(state["iteration"])
    )
    asked = settings(iterations=5, checkpoint_minutes=minutes)
    with a_minute_a_step(pace):
        train_detector(*make_detector(), dataset=two_squares(tmp_path), **asked, checkpoint=tmp_path / "c.pt")
    assert saved == steps
