"""The installer's refusals, and what it leaves alone; nothing here touches the network."""

import ast
import base64
import fcntl
import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tools import install
from tools.install import Environment, InstallError

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
    """The commands that the installer would run, none of which is run."""
    run = []
    monkeypatch.setattr(install, "run_logged", lambda command, venv, log: run.append(command))
    return run


def write_detectron2(site_packages):
    (site_packages / "detectron2").mkdir()
    (site_packages / "detectron2" / "__init__.py").write_text("__version__ = '0.6'\n")


def write_metadata(site_packages, name, version, record=""):
    folder = site_packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text(record)


def write_tools(site_packages, text="print('not ours')\n"):
    """A top-level `tools` of one module; returns its lines of a wheel's RECORD."""
    (site_packages / "tools" / "__pycache__").mkdir(parents=True)
    (site_packages / "tools" / "__pycache__" / "train_net.cpython-311.pyc").write_bytes(b"")
    (site_packages / "tools" / "train_net.py").write_text(text)
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"tools/train_net.py,sha256={sha256},{len(text)}\n"


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


def test_disk_sentence_gives_found_needed_and_where():
    with pytest.raises(InstallError, match=r"/data has 2\.5 GB free, .* needs 10 GB: .*make VENV="):
        install.check_disk(2_500_000_000, 10.0, Path("/data"))
    install.check_disk(10_000_000_000, 10.0, Path("/data"))


def test_python_without_ensurepip_is_told_which_package_to_install(monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", {"venv": "found", "ensurepip": None}.get)
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    with pytest.raises(InstallError, match=package):
        install.check_venv()


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
            "no version of torch>=2.4 for this Python",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "no space is left on the disk of /x",
        ),
        (
            "ERROR: Cannot install prune-transfer[dev]==0.1.0 and torch==2.3.1 because these package "
            "versions have conflicting dependencies.\n",
            "do not go together: prune-transfer[dev]==0.1.0 and torch==2.3.1",
        ),
        ("/x/bin/python: No module named pip\n", "/x/bin/python -m ensurepip"),
        ("a first line\nsomething new went wrong\n\n", "something new went wrong"),
        ("", "no output"),
    ],
)
def test_pip_failure_becomes_one_sentence_naming_the_log(output, sentence):
    explained = install.explain(output, Path("/x/install.log"))
    assert sentence in explained
    assert explained.endswith("(all of the output: /x/install.log)")
    assert "\n" not in explained


def test_full_disk_is_the_cause_even_if_connections_broke_too():
    output = RETRY.format(reason="timed out") + "OSError: [Errno 28] No space left on device"
    assert "no space is left" in install.explain(output, Path("/x/install.log"))


def test_failed_command_raises_and_leaves_its_output_in_the_log(tmp_path):
    code = "import os, sys; print(os.environ['TMPDIR']); sys.exit('No space left on device')"
    with (tmp_path / "install.log").open("a") as log, pytest.raises(InstallError, match="no space is left"):
        install.run_logged([sys.executable, "-c", code], tmp_path, log)
    logged = (tmp_path / "install.log").read_text()
    assert str(tmp_path / "tmp") in logged and "No space left on device" in logged
    assert not (tmp_path / "tmp").exists()


def test_look_finds_an_existing_detectron2(environment):
    venv, site_packages = environment
    assert install.look_into(venv).detectron2 == ""
    write_detectron2(site_packages)
    write_metadata(site_packages, "detectron2", "0.6")
    write_metadata(site_packages, "torch", "2.5.1+cu121")
    found = install.look_into(venv)
    assert found.detectron2 == str(site_packages / "detectron2" / "__init__.py")
    assert found.site_packages == site_packages
    assert found.torch == ["torch==2.5.1+cu121"]
    assert not found.from_wheel


def test_folder_without_a_module_is_no_detectron2(environment):
    venv, site_packages = environment
    (site_packages / "detectron2").mkdir()
    assert install.look_into(venv).detectron2 == ""


def test_existing_detectron2_and_its_pytorch_are_kept(environment, commands, capsys):
    venv, site_packages = environment
    write_detectron2(site_packages)
    write_metadata(site_packages, "torch", "2.5.1")
    found = install.look_into(venv)
    install.install_detectron2(venv, found, sys.stdout)
    assert commands == []
    assert str(site_packages / "detectron2") in capsys.readouterr().out
    install.install_project(venv, found, sys.stdout)
    assert commands[0][-3:] == ["-e", ".[dev]", "torch==2.5.1"]


def test_pytorch_beside_our_own_wheel_may_be_upgraded(environment, commands):
    venv, site_packages = environment
    write_detectron2(site_packages)
    write_metadata(site_packages, "torch", "2.5.1")
    write_metadata(site_packages, "sal-detectron2", "0.7.2")
    found = install.look_into(venv)
    assert found.from_wheel
    install.install_project(venv, found, sys.stdout)
    assert commands[0][-2:] == ["-e", ".[dev]"]


def test_detectron2_is_moved_in_without_the_tools_of_its_wheel(tmp_path, monkeypatch):
    site_packages = tmp_path / "site-packages"
    site_packages.mkdir()

    def unpack(command, venv, log):
        staging = Path(command[-1].partition("=")[2])
        staging.mkdir()
        write_detectron2(staging)
        write_metadata(staging, "sal-detectron2", "0.7.2", write_tools(staging))

    monkeypatch.setattr(install, "run_logged", unpack)
    found = Environment(Path("python"), site_packages, [], "", False)
    (site_packages / "detectron2").mkdir()  # left by an interrupted call
    install.install_detectron2(tmp_path, found, sys.stdout)
    assert sorted(path.name for path in site_packages.iterdir()) == [
        "detectron2",
        "sal_detectron2-0.7.2.dist-info",
    ]
    assert (site_packages / "detectron2" / "__init__.py").exists()
    assert not (tmp_path / "detectron2.partial").exists()


def test_stray_tools_of_the_wheel_are_removed(tmp_path):
    write_metadata(tmp_path, "sal-detectron2", "0.7.2", write_tools(tmp_path))
    install.remove_stray_tools(tmp_path)
    assert not (tmp_path / "tools").exists()


def test_tools_of_somebody_else_stay(tmp_path):
    record = write_tools(tmp_path)
    install.remove_stray_tools(tmp_path)  # no wheel at all
    assert (tmp_path / "tools" / "train_net.py").exists()

    write_metadata(tmp_path, "sal-detectron2", "0.7.2", record)
    (tmp_path / "tools" / "train_net.py").write_text("print('edited')\n")
    install.remove_stray_tools(tmp_path)  # the wheel's name, but not its content
    assert (tmp_path / "tools" / "train_net.py").exists()

    (tmp_path / "tools" / "train_net.py").write_text("print('not ours')\n")
    (tmp_path / "tools" / "mine.py").write_text("")
    install.remove_stray_tools(tmp_path)  # one file more than the wheel has
    assert (tmp_path / "tools" / "mine.py").exists()


def test_unfinished_environment_is_started_again(tmp_path, commands, monkeypatch):
    monkeypatch.setattr(install, "check_disk", lambda *_: None)
    (tmp_path / install.UNFINISHED).touch()
    (tmp_path / "lib" / "half").mkdir(parents=True)
    (tmp_path / "lib64").symlink_to("lib")
    install.create_environment(tmp_path, sys.stdout)
    assert [path.name for path in tmp_path.iterdir()] == [install.UNFINISHED]
    assert commands == [[sys.executable, "-m", "venv", str(tmp_path)]]


def test_folder_of_other_things_is_refused_and_untouched(tmp_path, commands):
    (tmp_path / "thesis.tex").write_text("a life's work")
    with pytest.raises(InstallError, match="has files but no working bin/python"):
        install.create_environment(tmp_path, sys.stdout)
    assert (tmp_path / "thesis.tex").read_text() == "a life's work"
    assert commands == []


def test_finished_environment_is_not_created_again(environment, commands):
    install.create_environment(environment[0], sys.stdout)
    assert commands == []


def test_environment_of_an_old_python_is_refused(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 3 8 10\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(InstallError, match=r"bin/python cannot be used: Python 3\.8\.10 is too old"):
        install.look_into(tmp_path)


def test_second_installation_waits_for_the_first(tmp_path, capsys):
    with (tmp_path / "log").open("a") as first, (tmp_path / "log").open("a") as second:
        install.take_lock(first, tmp_path)
        waiting = threading.Thread(target=install.take_lock, args=(second, tmp_path), daemon=True)
        waiting.start()
        said = ""
        while "waiting for it" not in said:
            assert waiting.is_alive(), said
            said += capsys.readouterr().out
            time.sleep(0.01)
        assert waiting.is_alive()
        fcntl.flock(first, fcntl.LOCK_UN)
        waiting.join()


def test_expected_failure_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run([sys.executable, SOURCE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("install: ") and done.stderr.count("\n") == 1
