"""COCO's evaluation keeps to the threads that a process was given."""

import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")
PROGRAM = f"""
import contextlib, io, sys
from pathlib import Path

from hotcoco import COCO, COCOeval
from training.device import set_threads

set_threads(int(sys.argv[1]), jobs=1)
box = {{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}}
truth = COCO({{"images": [{{"id": 1}}], "annotations": [box], "categories": [{{"id": 1, "name": "a"}}]}})
before = len(list(Path({str(TASKS)!r}).iterdir()))
with contextlib.redirect_stdout(io.StringIO()):
    evaluation = COCOeval(truth, truth.loadRes([box | {{"score": 0.5}}]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
print(len(list(Path({str(TASKS)!r}).iterdir())) - before)
"""


@pytest.mark.skipif(not TASKS.is_dir(), reason="this system does not say how many threads a process has")
@pytest.mark.parametrize("threads", [1, 3])
def test_an_evaluation_has_as_many_threads_as_pytorch(threads):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(threads)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads
