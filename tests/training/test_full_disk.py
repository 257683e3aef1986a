"""A disk that is full in any call of any kind of write: the error names the file, and what was whole is whole."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from study.report.write import CSV
from study.stages.progress import Recorder
from study.stages.store import RunDir
from training.checkpoint import last_checkpoint, save_checkpoint, save_snapshot
from training.files import append_bytes, whole_folder, write_bytes, write_json, write_text

CALLS = ["open", "write", "write after a part", "fsync", "close", "replace"]
WRITES = {
    "bytes": ("a.bin", lambda file, k: write_bytes(file, b"part", bytes([k]) * 99)),
    "text": ("a.txt", lambda file, k: write_text(file, f"number {k}")),
    "json": ("result.json", lambda file, k: write_json(file, {"number": k})),
    "report": (CSV, lambda file, k: write_text(file, f"route,score\nunpruned,{k}\n")),
    "snapshot": ("s.safetensors", lambda file, k: save_snapshot(file, filled(k))),
}


def filled(k):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, float(k))
    return layer


def fill_disk(monkeypatch, call):
    """From now on `call` of the system finds no space; "write after a part" finds some, once."""
    name, writes = call.split()[0], []
    original = getattr(os, name)

    def full(*arguments, **more):
        if name == "close":
            original(*arguments)
        if call == "write after a part" and not writes:
            writes.append(original(arguments[0], bytes(arguments[1])[:2]))
            return writes[0]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)


def says(file):
    return pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{re.escape(str(file))}'$")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", WRITES)
def test_a_file_is_as_it_was_and_the_error_names_it(tmp_path, monkeypatch, kind, call):
    name, write = WRITES[kind]
    write(tmp_path / name, 1)
    before = (tmp_path / name).read_bytes()
    with monkeypatch.context() as disk, says(tmp_path / name):
        fill_disk(disk, call)
        write(tmp_path / name, 2)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: before}
    write(tmp_path / name, 2)
    assert (tmp_path / name).read_bytes() != before


@pytest.mark.parametrize("call", CALLS)
def test_the_last_two_checkpoints_stay(tmp_path, monkeypatch, call):
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        save_checkpoint(path, {"step": step, "weights": torch.ones(50)})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as disk, says(path):
        fill_disk(disk, call)
        save_checkpoint(path, {"step": 3, "weights": torch.ones(50)})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_checkpoint_whose_second_rename_fails_is_the_previous_one(tmp_path, monkeypatch):
    path, replace, calls = tmp_path / "checkpoint.pt", os.replace, []
    save_checkpoint(path, {"step": 1})

    def full_then(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*arguments)

    with monkeypatch.context() as disk, says(path):
        disk.setattr(os, "replace", full_then)
        save_checkpoint(path, {"step": 2})
    assert last_checkpoint(path, required=["step"]) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.previous.pt"]


@pytest.mark.parametrize("call", ["open", "write", "write after a part", "close"])
def test_nothing_is_lost_from_a_file_that_grows(tmp_path, monkeypatch, call):
    file = tmp_path / "rows"
    append_bytes(file, b"first\n")
    with monkeypatch.context() as disk, says(file):
        fill_disk(disk, call)
        append_bytes(file, b"second\n")
    assert file.read_bytes().startswith(b"first\n")
    assert file.read_bytes() in (b"first\n", b"first\nsecond\n")  # the latter if only closing failed


@pytest.mark.parametrize("call", ["open", "write", "write after a part"])
@pytest.mark.parametrize("full", ["metrics.jsonl", "events"])
def test_metrics_and_events_are_whole_and_go_on(tmp_path, monkeypatch, call, full):
    run = RunDir(tmp_path)
    recorder = Recorder(run, "unpruned")
    for step in (1, 2):
        recorder(step, 9, {"loss": 1.0 / step})
    name = call.split()[0]
    original, wanted = getattr(os, name), run.metrics if full == "metrics.jsonl" else recorder._events

    def of_one_file(*arguments, **more):
        file = arguments[0] if name == "open" else Path(f"/proc/self/fd/{arguments[0]}").readlink()
        if str(file) != str(wanted):
            return original(*arguments, **more)
        if call == "write after a part" and len(arguments[1]) == sizes.setdefault("first", len(arguments[1])):
            return original(arguments[0], bytes(arguments[1])[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sizes: dict[str, int] = {}
    with monkeypatch.context() as disk, says(wanted):
        disk.setattr(os, name, of_one_file)
        recorder(3, 9, {"loss": 0.3})
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()][:2] == [1, 2]
    assert [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss")] == [1, 2]
    again = Recorder(run, "unpruned")
    for step in (2, 3):  # from the checkpoint of step 1
        again(step, 9, {"loss": 1.0 / step})
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, round(event.value, 3)) for event in found] == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_a_folder_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as disk, says(out / "b"), whole_folder(out, known=frozenset("ab")) as folder:
        write_bytes(folder / "a", b"1")
        fill_disk(disk, "fsync")
        write_bytes(folder / "b", b"2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_what_is_written_follows_the_umask(tmp_path, umask):
    file_mode, folder_mode = 0o666 & ~umask, 0o777 & ~umask
    before = os.umask(umask)
    try:
        write_text(tmp_path / "new" / "a", "1")
        append_bytes(tmp_path / "new" / "b", b"1")
        save_checkpoint(tmp_path / "new" / "c.pt", {"step": 1})
        with whole_folder(tmp_path / "out", known=frozenset("a")) as folder:
            write_bytes(folder / "a", b"1")
    finally:
        os.umask(before)
    modes = {str(file.relative_to(tmp_path)): file.stat().st_mode & 0o777 for file in tmp_path.rglob("*")}
    assert modes == {
        "new": folder_mode, "new/a": file_mode, "new/b": file_mode, "new/c.pt": file_mode,
        "out": folder_mode, "out/a": file_mode,
    }  # fmt: skip
