"""The installer's refusals, and what it leaves alone; nothing here touches the network."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import install

SOURCE = Path(install.__file__)

# Messages of pip 23, the addresses left out.
RETRY = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after "
    "connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object>: "
    "Failed to establish a new connection: {reason}')': /simple/torch/\n"
)
MISSING = (
    "ERROR: Could not find a version that satisfies the requirement {name} (from versions: {versions})\n"
    "ERROR: No matching distribution found for {name}\n"
)


@pytest.fixture
def environment(tmp_path):
    """An empty environment without pip, as (directory, site-packages)."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    return venv, next(venv.glob("lib/python*/site-packages"))


@pytest.fixture
def commands(monkeypatch):
    """What the installer would run of pip and venv, none of which is run; looks into an environment are real."""
    run, commands = install.run, []

    def record(log, *command, cwd=install.ROOT):
        if "-m" in command:
            commands.append([*map(str, command)])
            return ""
        return "versions" if command[-1] == install.CHECK else run(log, *command, cwd=cwd)

    monkeypatch.setattr(install, "run", record)
    return commands


def write_detectron2(site_packages):
    (site_packages / "detectron2").mkdir()
    (site_packages / "detectron2" / "__init__.py").write_text("__version__ = '0.6'\n")


def write_metadata(site_packages, name, version):
    folder = site_packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13, "final", 0), (2, 7, 18)])
def test_old_python_is_named_with_what_is_needed(version):
    problem = install.python_problem(version)
    assert ".".join(map(str, version[:3])) in problem
    assert "3.11" in problem and "make PYTHON=python3.12" in problem


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1, "final", 0), (4, 0, 0)])
def test_new_python_is_accepted(version):
    assert install.python_problem(version) == ""


def test_python_3_6_can_parse_the_installer():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    assert "python_problem" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_small_disk_is_refused_with_found_needed_and_where(tmp_path, commands, monkeypatch):
    monkeypatch.setattr(install, "FRESH_GB", 1e9)
    with pytest.raises(SystemExit, match=r"has \d+\.\d GB free, .* needs 1000000000 GB: .*make VENV="):
        install.install(tmp_path)
    assert commands == []


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            RETRY.format(reason="[Errno -3] Temporary failure in name resolution")
            + MISSING.format(name="torch>=2.4", versions="none"),
            "the package index cannot be reached",
        ),
        (
            RETRY.format(reason="[Errno 111] Connection refused")
            + MISSING.format(name="setuptools>=68", versions="none"),
            "the package index cannot be reached",
        ),
        (
            MISSING.format(name="torch>=2.4", versions="1.0.0, 2.0.1"),
            "has no torch>=2.4 for this Python",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "no space is left on the disk",
        ),
        (
            "ERROR: Cannot install prune-transfer[dev]==0.1.0 and torch==2.3.1 because these package "
            "versions have conflicting dependencies.\n",
            "do not go together: prune-transfer[dev]==0.1.0 and torch==2.3.1",
        ),
        (
            "The virtual environment was not created successfully because ensurepip is not available.\n\n"
            "    apt install python3.12-venv\n\nFailing command: /x/bin/python3\n",
            "cannot create environments: `apt install python3.12-venv`",
        ),
        ("a first line\nsomething new went wrong\n\n", "something new went wrong"),
        ("", "no output"),
    ],
)
def test_pip_failure_becomes_one_sentence(output, sentence):
    explained = install.explain(output)
    assert sentence in explained
    assert "\n" not in explained


def test_full_disk_is_the_cause_even_if_connections_broke_too():
    output = RETRY.format(reason="timed out") + "[Errno 28] No space left on device"
    assert "no space is left" in install.explain(output)


def test_a_failed_command_ends_with_one_sentence_and_leaves_its_output_in_the_log(tmp_path):
    log = tmp_path / "install.log"
    sentence = r"^install: no space is left on the disk \(all of the output: .*install.log\)$"
    with pytest.raises(SystemExit, match=sentence):
        install.run(log, sys.executable, "-c", "import sys; print('first'); sys.exit('No space left on device')")
    assert "first\nNo space left on device" in log.read_text()


def test_look_finds_an_existing_detectron2(environment):
    venv, site_packages = environment
    look = lambda: install.look_into(venv / "bin" / "python", venv / "install.log")  # noqa: E731
    (site_packages / "detectron2").mkdir()
    assert look()["detectron2"] == ""  # a folder without a module is none
    (site_packages / "detectron2").rmdir()
    write_detectron2(site_packages)
    write_metadata(site_packages, "torch", "2.5.1+cu121")
    assert look() == {
        "detectron2": str(site_packages / "detectron2" / "__init__.py"),
        "site_packages": str(site_packages),
        "torch": ["torch==2.5.1+cu121"],
        "from_wheel": False,
        "pip": False,
    }


def test_existing_detectron2_and_its_pytorch_are_kept(environment, commands, capsys):
    venv, site_packages = environment
    write_detectron2(site_packages)
    write_metadata(site_packages, "torch", "2.5.1")
    install.install(venv)
    assert [command[-1] for command in commands] == ["ensurepip", "torch==2.5.1"]
    assert str(site_packages / "detectron2") in capsys.readouterr().out


def test_pytorch_beside_our_own_wheel_may_be_upgraded(environment, commands):
    venv, site_packages = environment
    write_detectron2(site_packages)
    write_metadata(site_packages, "torch", "2.5.1")
    write_metadata(site_packages, "sal-detectron2", "0.7.2")
    install.install(venv)
    assert commands[-1][-2:] == ["-e", ".[dev]"]


def test_a_detectron2_compiled_over_our_wheel_is_the_users(environment, commands):
    venv, site_packages = environment
    write_detectron2(site_packages)
    for name, version in (("torch", "2.5.1"), ("sal-detectron2", "0.7.2"), ("detectron2", "0.6")):
        write_metadata(site_packages, name, version)
    install.install(venv)
    assert commands[-1][-1] == "torch==2.5.1"


def test_an_environment_without_pytorch_gets_the_newest_tried(environment, commands):
    venv, site_packages = environment
    write_detectron2(site_packages)
    install.install(venv)
    assert commands[-1][-2:] == install.TESTED


def test_detectron2_is_moved_in_without_the_tools_of_its_wheel(tmp_path, monkeypatch):
    site_packages = tmp_path / "site-packages"
    site_packages.mkdir()

    def unpack(log, *command):
        staging = Path(str(command[-1]).partition("=")[2])
        (staging / "tools").mkdir(parents=True)
        write_detectron2(staging)
        about = write_metadata(staging, "sal-detectron2", "0.7.2")
        with (about / "METADATA").open("a") as file:
            file.write("Requires-Dist: numpy<2\nRequires-Dist: black\nRequires-Dist: yacs>=0.1.8\n")
        (about / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp310-cp310-manylinux_2_17_x86_64\n")

    monkeypatch.setattr(install, "run", unpack)
    (site_packages / "detectron2").mkdir()  # left by an interrupted call
    install.install_detectron2(["pip"], site_packages, tmp_path / "install.log")
    assert sorted(path.name for path in site_packages.iterdir()) == ["detectron2", "sal_detectron2-0.7.2.dist-info"]
    assert (site_packages / "detectron2" / "__init__.py").exists()
    assert not (tmp_path / "detectron2.partial").exists()
    about = site_packages / "sal_detectron2-0.7.2.dist-info"
    assert re.findall(r"^Requires-Dist: (.*)", (about / "METADATA").read_text(), re.MULTILINE) == ["yacs>=0.1.8"]
    assert (about / "WHEEL").read_text() == "Wheel-Version: 1.0\nTag: py3-none-any\n"


def test_folder_of_other_things_is_refused_and_untouched(tmp_path, commands):
    (tmp_path / "thesis.tex").write_text("a life's work")
    with pytest.raises(SystemExit, match="has files but no working bin/python"):
        install.install(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "a life's work"
    assert commands == []


def test_environment_of_an_old_python_is_refused(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 3 8 10\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"bin/python cannot be used: Python 3\.8\.10 is too old"):
        install.install(tmp_path)


def test_expected_failure_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run([sys.executable, SOURCE, tmp_path / "file"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("install: ") and done.stderr.count("\n") == 1
