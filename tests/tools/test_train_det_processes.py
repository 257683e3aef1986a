"""tools/train_det.py --num-gpus 2 on the CPU: one run directory, stopped together by a signal, and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tiny_study import TINY
from support.written_detections import written_detections

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 60
DETECTOR = [o for o in TINY if o.startswith(("detector.", "evaluate", "machine.threads"))]
SMALL = [*DETECTOR, f"detector.train.iterations={ITERATIONS}"]


HELD = ROOT / "tests" / "support" / "held_training.py"


def command(tool, config, *arguments):
    return [sys.executable, str(ROOT / "tools" / tool), str(ROOT / "configs" / config), *map(str, arguments)]


def options():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def run(*arguments):
    done = subprocess.run(command(*arguments), timeout=900, check=False, **options())
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1].removeprefix("run directory: "))


@pytest.mark.slow
def test_two_processes_leave_one_run_and_stop_together(tmp_path):
    classifier = [o for o in TINY if o.startswith("classifier.")]
    dense = run("train_cls.py", "classify/digits_resnet10.yaml", *classifier, "--runs", tmp_path)
    training = ("train_det.py", "detect/digits_fpn.yaml", *SMALL, "--backbone", dense, "--runs", tmp_path)

    held = options()
    held["env"]["HOLD_UNTIL"] = str(tmp_path / "never")  # but by a signal
    python, *tool = command(*training, "--num-gpus", 2)
    process = subprocess.Popen([python, str(HELD), *tool], **held)
    while not list(tmp_path.glob("train_detector-*/seed0/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=900)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.glob("train_detector-*/seed0/checkpoint.pt"))  # none was due: the signal's

    out = run(*training, "--num-gpus", 2)
    (trained,) = tmp_path.glob("train_detector-*/seed0/result.json")
    assert json.loads(trained.read_text())["images_seen"] == 2 * ITERATIONS
    assert "going on from" in (trained.parent / "log.txt").read_text()
    together = json.loads((out / "result.json").read_text())
    detections = written_detections(out)

    shutil.rmtree(out)  # once more by one process, of the same weights
    assert run(*training) == out
    alone = json.loads((out / "result.json").read_text())
    assert together["metrics"] == pytest.approx(alone["metrics"])
    again = written_detections(out)
    assert [d["image_id"] for d in again] == [d["image_id"] for d in detections]


@pytest.mark.slow
def test_torchrun_and_impossible_processes_are_refused_in_one_sentence(tmp_path):
    training = command("train_det.py", "detect/digits_fpn.yaml", "--backbone", tmp_path, "--runs", tmp_path)
    for arguments, variables, message in (
        ([], {"WORLD_SIZE": "2"}, "a detector's are started by --num-gpus"),
        (["--num-gpus", "2", "--num-machines", "2"], {}, "several machines need --num-gpus and a --dist-url"),
    ):
        known = options()
        known["env"] |= variables
        done = subprocess.run([*training, *arguments], timeout=900, check=False, **known)
        assert done.returncode == 2 and message in done.stderr
        assert "Traceback" not in done.stderr
