"""tools/run_pipeline.py as programs: two studies at once on one runs folder, and a third process that watches."""

import os
import pty
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock
from support.tiny_study import DIGITS, TINY, tiny

from study.plan.pipelines import all_stages
from study.run.housekeeping import verify_runs
from study.stages.store import RunDir

ROOT = Path(__file__).resolve().parents[2]
LONGER = "classifier.train.epochs=40"
STUDIES = {
    name: [f"name={name}", f"pipelines=[unpruned, {route}]", LONGER]
    for name, route in (("one", "prune_then_transfer"), ("two", "scratch_e"))
}


HELD = ROOT / "tests" / "support" / "held_training.py"


def start(name, runs, *more, **streams):
    command = [sys.executable, str(HELD), str(ROOT / "tools" / "run_pipeline.py"), str(DIGITS), *TINY, *STUDIES[name]]
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160", "LINES": "50", "TERM": "xterm"}
    variables["HOLD_UNTIL"] = str(runs / "seen")
    return subprocess.Popen([*command, "--runs", str(runs), *more], env={**os.environ, **variables}, **streams)


def text_of(written):
    """What a terminal showed, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(written).decode(errors="replace"))


def read_to_the_end(terminal, found):
    """Gather what programs write to their terminal until the last one that has it open ends."""
    with suppress(OSError):
        while True:
            found.append(os.read(terminal, 65536))


@pytest.mark.slow
def test_two_studies_at_once_train_what_they_share_once_and_can_be_watched(tmp_path):
    study = RunDir(tmp_path / "one")
    study.path.mkdir()
    terminal, end = pty.openpty()
    written: list[bytes] = []
    reader = threading.Thread(target=read_to_the_end, args=(terminal, written))
    # held here too, so that there is something to watch before the studies have started
    with FileLock(study.at_work):
        watching = start("one", tmp_path, "--watch", stdout=end, stderr=end)
        os.close(end)
        reader.start()
        while not written:
            assert watching.poll() is None
            time.sleep(0.05)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        both = {name: start(name, tmp_path, **pipes) for name in STUDIES}
        progress = re.compile(r"classify \(2 routes\) +│ 0 +│ running +│ \d+/120 +│ \d+ (s|min) left +│ loss")
        while not progress.search(text_of(written)):  # the training holds still until this was seen
            assert [process.poll() for process in (watching, *both.values())] == [None] * 3, text_of(written)
            time.sleep(0.05)
        (tmp_path / "seen").touch()
        outcomes = [(process.communicate(timeout=900)[0], process.returncode) for process in both.values()]
        assert watching.poll() is None
    for out, code in outcomes:
        assert code == 0, out
    assert watching.wait(900) == 0
    reader.join()
    seen = text_of(written)
    assert re.search(r"evaluate \(unpruned\) +│ 0 +│ done", seen), seen
    assert seen.rstrip().endswith("No process is at work on this study.")
    routes = {name: {s.id: s for s in all_stages(tiny(*STUDIES[name])[1])} for name in STUDIES}
    shared = routes["one"].keys() & routes["two"].keys()
    assert len(shared) == 3  # the dense classifier and its detector, trained and evaluated
    for key, stage in (routes["one"] | routes["two"]).items():
        log = stage.run(tmp_path).log.read_text()
        assert log.count("the training begins") == int(stage.kind.startswith("train_")), key
        assert "going on from" not in log, key
    for name in STUDIES:
        assert (tmp_path / name / "report.html").is_file() and (tmp_path / name / "comparison.csv").is_file()
    # and the one that times the networks, which are of the same shapes
    assert verify_runs(tmp_path) == (len(routes["one"] | routes["two"]) + 1, [])
