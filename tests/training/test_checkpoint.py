"""Checkpoints that were cut off, changed, or could not be written: the one before is used, or a sentence says so."""

import errno
import io
import logging
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training import files as atomic_file
from training.checkpoint import (
    damaged_checkpoint,
    last_checkpoint,
    load_checkpoint,
    previous_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)

KEYS = ("step", "weights")


def state(step):
    return {"step": step, "weights": torch.arange(100.0) + step}


def saved_twice(folder):
    path = folder / "checkpoint.pt"
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    return path


def test_the_last_two_checkpoints_are_kept(tmp_path):
    path = saved_twice(tmp_path)
    assert load_checkpoint(path, required=KEYS)["step"] == 2
    assert load_checkpoint(previous_checkpoint(path), required=KEYS)["step"] == 1
    save_checkpoint(path, state(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    remove_checkpoints(path)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_checkpoint_cut_off_anywhere_gives_the_one_before(tmp_path, share):
    path = saved_twice(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    found = last_checkpoint(path, required=KEYS)
    assert found is not None and found["step"] == 1
    assert torch.equal(found["weights"], state(1)["weights"])
    assert damaged_checkpoint(path).is_file() and not path.exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_changed_bit_anywhere_is_found(tmp_path, share, bit):
    """PyTorch itself reads a changed number without noticing."""
    path = saved_twice(tmp_path)
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        load_checkpoint(path, required=KEYS)


def test_without_a_whole_checkpoint_the_log_says_that_the_training_starts_over(tmp_path, caplog):
    path = saved_twice(tmp_path)
    assert last_checkpoint(tmp_path / "none.pt", required=KEYS) is None
    assert caplog.text == ""
    for file in (path, previous_checkpoint(path)):
        file.write_bytes(b"\x00" * 7)
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(path, required=KEYS) is None
    assert "the training starts over" in caplog.text


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    path = saved_twice(tmp_path)
    path.replace(previous_checkpoint(path))
    found = last_checkpoint(path, required=KEYS)
    assert found is not None and found["step"] == 2


def test_a_failed_write_leaves_the_last_checkpoint_and_no_part(tmp_path, monkeypatch):
    path = saved_twice(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_file.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*checkpoint\.pt"):
        save_checkpoint(path, state(3))
    assert load_checkpoint(path, required=KEYS)["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": Evil(), "weights": 0})  # with a right checksum
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(path, required=KEYS)
    assert not (tmp_path / "evil").exists()
    torch.load(io.BytesIO(path.read_bytes()[:-32]), weights_only=False)  # it would have been
    assert (tmp_path / "evil").exists()
