"""What every launcher has: quick help, a version, and a traceback only when asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pruning.errors import Refusal
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
        raise Refusal("the ratio is 2")

    assert launch(work) == 2
    assert capsys.readouterr().err == "error: the ratio is 2\n"
    with pytest.raises(Refusal, match="the ratio is 2"):
        launch(work, debug=True)


@pytest.mark.parametrize("fault", [ValueError("of a library"), RuntimeError("of PyTorch"), KeyError("k"), OSError("o")])
def test_a_fault_of_the_program_keeps_its_traceback(fault):
    def work():
        raise fault

    with pytest.raises(type(fault)):
        launch(work)


def test_an_error_of_the_system_that_names_a_file_is_a_sentence(capsys, tmp_path):
    assert launch(lambda: (tmp_path / "absent").read_text() and 0) == 2
    assert capsys.readouterr().err == f"error: [Errno 2] No such file or directory: '{tmp_path}/absent'\n"
