"""A tool as a program whose trainings hold still after their second report: what comes next is not up to who is quick.

python held_training.py TOOL ARGUMENTS...   until the file in HOLD_UNTIL is there, or a signal asks for the end.
"""

import os
import runpy
import sys
import time
from pathlib import Path

import study.stages.progress
from study.stages.progress import Recorder
from training.stopping import stop_asked

record = Recorder.__call__


def record_and_hold(self, step, total, metrics):
    first = self.first is None
    record(self, step, total, metrics)
    while not (first or stop_asked() or Path(os.environ["HOLD_UNTIL"]).is_file()):
        time.sleep(0.01)


# also in the processes that the tool starts: they load this file, by another name
Recorder.__call__ = record_and_hold
study.stages.progress._STATUS_SECONDS = 0.0  # every report can be seen

if __name__ == "__main__":
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
