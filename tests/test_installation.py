"""The program as it is installed: one version, packages that a file may hide, and a wheel that needs no clone."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.docstring_code import readme_code

import classify
import detect
import prune_transfer
import pruning
import study
import training
from study.config.shipped import shipped
from study.run.launch import launch

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"resnet50": "resnet18", 'weights="DEFAULT"': "", "224": "64"}


def test_every_package_has_the_version_of_the_installation():
    packages = [pruning, training, classify, detect, study]
    assert tuple(package.__name__ for package in packages) == prune_transfer.PACKAGES
    assert {package.__version__ for package in packages} == {importlib.metadata.version("prune-transfer")}


def python(folder, *words):
    """A process whose first place to look for modules is `folder`."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", prune_transfer.PACKAGES)
def test_a_file_that_hides_a_package_is_named_in_one_sentence(name, tmp_path):
    file = tmp_path / f"{name}.py"
    file.write_text("raise SystemExit('this is not ours to run')")
    done = python(tmp_path, "-m", "prune_transfer", "run", "digits", "--dry-run")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        f"error: {file} hides prune-transfer's package {name!r}: rename it, start in another folder, or take its folder"
        " off PYTHONPATH\n"
    )


@pytest.mark.parametrize("user", ["study", "classify", "detect"])
def test_a_library_says_so_too(user, tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    done = python(tmp_path, "-c", f"import pruning, {user}")
    assert "hides prune-transfer's package 'training'" in done.stderr.splitlines()[-1]


def test_a_folder_without_python_hides_nothing(tmp_path):
    (tmp_path / "detect").mkdir()
    assert python(tmp_path, "-c", "import study").returncode == 0


def test_without_detectron2_it_is_said_how_to_get_it(capsys):
    def work():
        raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

    assert launch(work) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: Detectron2 is not installed") and said.count("\n") == 1
    assert f"--target={sysconfig.get_path('purelib')} sal-detectron2" in said


def test_names_of_shipped_configs_are_one_file_each():
    files = [file for folder in ("claims", "classify", "detect", "pipelines") for file in shipped(folder).values()]
    assert len(files) == len(shipped()) > 40 and all(file.suffix == ".yaml" for file in files)
    assert {file.resolve() for file in files} == set((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of programs of an environment with the built wheel; libraries are those of this one."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    left = shutil.ignore_patterns(".*", "runs", "build", "tests", "docs", "benchmarks", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left)
    pip = [sys.executable, "-m", "pip"]
    quiet = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([programs / "python", "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    (Path(found) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", programs / "python", "install", *quiet, wheel], check=True)
    return programs


def outside(program, *words, cwd):
    """A program that knows nothing of this clone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder(installed, tmp_path):
    found = outside(installed / "python", "-c", "import study; print(study.__file__)", cwd=tmp_path).stdout
    assert Path(found).is_relative_to(installed.parent) and not (installed.parent / "tools").exists()
    planned = outside(installed / "prune-transfer", "run", "digits", "seeds=[0]", "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "digits: 6 routes, 20 stages" in planned.stdout
    (tmp_path / "mine.yaml").write_text("_base_: digits\nname: mine\n")
    wrong = outside(installed / "prune-transfer", "run", "mine.yaml", "prune.ratio=50", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: override 'prune.ratio=50': prune.ratio: 50 does")
    version = outside(installed / "prune-transfer", "--version", cwd=tmp_path).stdout
    assert version == f"prune-transfer {prune_transfer.__version__}\n"


@pytest.mark.slow
def test_the_lines_of_the_readme_work_with_a_wheel(installed, tmp_path):
    (tmp_path / "lines.py").write_text(readme_code("pruning.prune", SMALL))
    done = outside(installed / "python", "lines.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dense, pruned = map(int, done.stdout.split())
    assert 0.4 * dense < pruned < 0.7 * dense
