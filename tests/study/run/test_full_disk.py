"""A disk that is full, or cannot be written any more, in the middle of a real training."""

import os
import subprocess

import pytest
from support.tiny_classification import tiny

from study.plan.pipelines import all_stages
from study.run import stage as module
from study.run.housekeeping import verify_runs
from study.run.stage import StorageError
from study.run.study import run_study


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB in memory, and the function that fills it or makes it unwritable."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk):
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * (free.f_bavail * free.f_frsize))


def make_unwritable(disk):
    runs = str(disk / "runs")
    subprocess.run(["mount", "--bind", runs, runs], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", runs], check=True)


def repair(disk):
    if (disk / "filler").exists():
        (disk / "filler").unlink()
    else:
        subprocess.run(["umount", "--lazy", str(disk / "runs")], check=True)


@pytest.mark.parametrize(
    ("harm", "reason"), [(fill, "No space left on device"), (make_unwritable, "Read-only file system")]
)
def test_a_training_ends_with_a_sentence_and_goes_on_from_its_checkpoint(disk, monkeypatch, harm, reason):
    config, routes = tiny({"pipelines": ["unpruned"], "classifier.train.epochs": 4})
    (stage,) = all_stages(routes)
    run = stage.run(disk / "runs")
    recorder = module.Recorder

    class Harming(recorder):
        def __call__(self, step, total, metrics):
            super().__call__(step, total, metrics)
            if step == 6:  # the end of the second epoch; the last checkpoint is of step 5
                harm(disk)

    monkeypatch.setattr(module, "Recorder", Harming)
    with pytest.raises(StorageError, match=f"{reason}; nothing that was saved is lost"):
        run_study(config, disk / "tiny.yaml", routes, disk / "runs")
    monkeypatch.setattr(module, "Recorder", recorder)
    repair(disk)
    assert run.checkpoint.is_file() and not run.done
    _, outcome = run_study(config, disk / "tiny.yaml", routes, disk / "runs")
    assert outcome.complete
    assert "going on from" in run.log.read_text()
    steps = [line for line in run.metrics.read_text().splitlines() if '"step": 12' in line]
    assert len(steps) == 1
    assert verify_runs(disk / "runs") == (2, [])  # and the one that times the network
