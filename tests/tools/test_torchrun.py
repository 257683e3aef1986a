"""torchrun and tools/train_cls.py: two processes leave one run directory, and the same command again does nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def torchrun(runs):
    config = ROOT / "configs" / "classify" / "digits_resnet10.yaml"
    small = ["classifier.train.epochs=1", "classifier.options.width=0.125", "classifier.dataset.options.n_train=400"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*launcher, str(ROOT / "tools" / "train_cls.py"), str(config), *small, "--runs", str(runs)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_leave_one_run(tmp_path):
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["images_seen"] == 400
    assert done.stdout.count("run directory:") == 1
    written = result.stat().st_mtime_ns
    again = torchrun(tmp_path)
    assert again.returncode == 0, again.stderr
    assert result.stat().st_mtime_ns == written
