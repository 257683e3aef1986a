"""torchrun and tools/train_cls.py: two processes leave one run directory, are stopped together, and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELD = ROOT / "tests" / "support" / "held_training.py"


def torchrun(runs, *overrides, held=False):
    """The launcher with two processes, started; `held`: the training waits for a signal after its second report."""
    config = ROOT / "configs" / "classify" / "digits_resnet10.yaml"
    small = ["classifier.train.epochs=1", "classifier.options.width=0.125", "classifier.dataset.options.n_train=400"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    tool = [*([str(HELD)] if held else []), str(ROOT / "tools" / "train_cls.py")]
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*launcher, *tool, str(config), *small, *overrides, "--runs", str(runs)],
        env={**os.environ, **variables, "HOLD_UNTIL": str(runs / "never")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Its exit code and what it printed."""
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.mark.slow
def test_two_processes_leave_one_run(tmp_path):
    code, out, err = ended(torchrun(tmp_path))
    assert code == 0, err
    (result,) = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["images_seen"] == 400
    assert out.count("run directory:") == 1
    written = result.stat().st_mtime_ns
    code, _, err = ended(torchrun(tmp_path))
    assert code == 0, err
    assert result.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_all_processes_and_the_same_command_goes_on_to_the_same_bits(tmp_path):
    longer = ["classifier.train.epochs=12", "machine.checkpoint_minutes=0"]
    process = torchrun(tmp_path / "stopped", *longer, held=True)
    while not list((tmp_path / "stopped").rglob("checkpoint.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code != 0 and err.count("stopped by SIGTERM; run the same command to go on") == 2
    assert not list((tmp_path / "stopped").rglob("result.json"))
    for runs in ("stopped", "whole"):
        code, _, err = ended(torchrun(tmp_path / runs, *longer))
        assert code == 0, err
    one, two = (next((tmp_path / runs).rglob("weights.safetensors")) for runs in ("stopped", "whole"))
    assert one.read_bytes() == two.read_bytes()
    log = next((tmp_path / "stopped").rglob("log.txt")).read_text()
    assert "going on from" in log and log.count("the training begins") == 1
