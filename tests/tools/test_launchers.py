"""What every launcher has: quick help, a version, and a traceback only when asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from study.run.launch import launch

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem not in ("__init__", "install"))


def run(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_and_version_load_no_pytorch(name):
    path = str(ROOT / "tools" / f"{name}.py")
    for word, expected in (("--help", r"usage: .*--debug"), ("--version", r"prune-transfer \d+\.\d+")):
        done = run(
            f"import runpy, sys; sys.argv = [{path!r}, {word!r}]\n"
            "sys.modules['torch'] = sys.modules['pydantic'] = None\n"
            f"runpy.run_path({path!r}, run_name='__main__')"
        )
        assert done.returncode == 0, done.stderr
        assert re.search(expected, done.stdout, re.DOTALL)


def test_an_error_is_a_sentence_and_with_debug_a_traceback(capsys):
    def work():
        raise ValueError("the ratio is 2")

    assert launch(work) == 2
    assert capsys.readouterr().err == "error: the ratio is 2\n"
    with pytest.raises(ValueError, match="the ratio is 2"):
        launch(work, debug=True)
