"""Build the project's environment: PyTorch, Detectron2, the project itself and what its tests need.

    python3 tools/install.py .venv

The Makefile calls it. It is the one launcher that runs before anything is installed, so it uses the standard
library only and is longer than the others; any Python from 3.6 on must be able to parse it, to be told so.
"""

import argparse
import base64
import csv
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import NamedTuple, TextIO

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
LOG = "install.log"  # also the lock: two `make` at once must not write into one environment
UNFINISHED = ".unfinished"  # in an environment that this program began and has not completed

# Upstream publishes nothing for current Python or PyTorch. This wheel's tag says CPython 3.10, for a compiled
# extension that this project does not use: hence the options.
DETECTRON2 = "--no-deps --only-binary=:all: --python-version=3.10 --implementation=cp sal-detectron2==0.7.2"
# The newest PyTorch that this project was run with; an environment that has a PyTorch keeps its own.
TESTED = ["torch<2.15", "torchvision<0.30"]

# PyTorch's Linux builds bring CUDA: 6 GB in place and 3 GB of wheels while they are unpacked.
FRESH_GB = 10.0 if sys.platform == "linux" else 3.0
UPDATE_GB = 1.0
CACHE_GB = 3.0  # what pip's own cache of those wheels takes

# What pip says, and what the user reads instead; the first match counts, so causes come before consequences.
CAUSES = (
    ("No space left on device|Disk quota exceeded", "no space is left on the disk of {venv}"),
    (
        "[Cc]onnection broken|Max retries exceeded|Failed to establish a new connection|name resolution|"
        "Name or service not known|Network is unreachable|[Tt]imed out",
        "the package index cannot be reached, and an installation needs the network",
    ),
    (
        r"(?:that satisfies the requirement|No matching distribution found for) ([^\s(]+)",
        "the package index has no version of {0} for this Python and system",
    ),
    (r"Cannot install (.+) because .* conflicting", "these do not go together: {0}"),
    ("No module named pip", "the environment has no pip, `{venv}/bin/python -m ensurepip` adds it"),
)


def python_problem(version) -> str:
    """What is wrong with a Python of this `version` (as `sys.version_info`); empty if nothing is."""
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return ""
    found = ".".join(str(part) for part in version[:3])
    return f"Python {found} is too old, 3.11 or newer is needed: name one, as in `make PYTHON=python3.12`"


# Here and not in main(): an older Python can parse what follows, but not evaluate its annotations.
if __name__ == "__main__" and python_problem(sys.version_info):
    sys.exit("install: " + python_problem(sys.version_info))


class InstallError(Exception):
    """An expected failure; the text is the sentence to show."""


class Environment(NamedTuple):
    """What a look into an environment found."""

    python: Path
    site_packages: Path
    torch: list[str]  # "torch==2.14.1" and the like, as far as installed
    detectron2: str  # where it was found, empty if it was not
    from_wheel: bool  # the Detectron2 is the wheel that this program installs


# Runs in the environment's own Python, which may be too old for all but the first line.
LOOK = """
import sys; print(*sys.version_info[:3])
import importlib.metadata as metadata, importlib.util, json, sysconfig
names = {d.metadata["Name"]: d.version for d in metadata.distributions()}
spec = importlib.util.find_spec("detectron2")
print(json.dumps({
    "site_packages": sysconfig.get_path("purelib"),
    "torch": [f"{name}=={names[name]}" for name in ("torch", "torchvision") if name in names],
    "detectron2": spec.origin or "" if spec else "",  # a mere folder of that name has no origin
    "from_wheel": "sal-detectron2" in names,
}))
"""

CHECK = """
import detectron2, detectron2.modeling, sys, torch, torchvision
print("Python %d.%d.%d" % sys.version_info[:3], "torch " + torch.__version__,
      "torchvision " + torchvision.__version__, "detectron2 " + detectron2.__version__, sep=", ")
"""


def check_disk(free_bytes: int, needed_gb: float, directory: Path) -> None:
    """Raise InstallError if `directory` has less than `needed_gb` (1 GB = 1e9 bytes) free."""
    if free_bytes < needed_gb * 1e9:
        raise InstallError(
            f"{directory} has {free_bytes / 1e9:.1f} GB free, an installation needs {needed_gb:.0f} GB: "
            "make room, or name a directory on another disk, as in `make VENV=/data/venv`"
        )


def check_venv() -> None:
    """Raise InstallError if this Python cannot create environments."""
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        raise InstallError(
            f"{sys.executable} cannot create environments, it lacks venv or ensurepip: install them (Debian "
            f"and Ubuntu: `apt install {package}`), or name another, as in `make PYTHON=python3.12`"
        )


def explain(output: str, log: Path) -> str:
    """One sentence for the `output` of a failed command, all of which is in `log`."""
    sentence = ([line for line in output.splitlines() if line.strip()] or ["no output"])[-1].strip()
    for pattern, known in reversed(CAUSES):
        match = re.search(pattern, output)
        if match:
            sentence = known.format(*match.groups(), venv=log.parent)
    return f"{sentence} (all of the output: {log})"


def run_logged(command: list[str], venv: Path, log: TextIO) -> None:
    """Run `command` in the project's directory with its output in `log`; raise InstallError if it fails."""
    temporary = venv / "tmp"  # not /tmp, which is often small and held in memory
    temporary.mkdir(exist_ok=True)
    log.write(f"$ {shlex.join(command)}\n")
    env = {**os.environ, "TMPDIR": str(temporary)}
    lock = [log.fileno()]  # stays locked for a pip that outlives this program
    lines = []
    try:
        with Popen(command, cwd=ROOT, env=env, stdout=PIPE, stderr=STDOUT, errors="replace", pass_fds=lock) as pip:
            for line in pip.stdout or ():
                lines.append(line)
                log.write(line)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if pip.returncode:
        raise InstallError(explain("".join(lines), venv / LOG))


def pip_install(python: Path, *arguments: str) -> list[str]:
    """The command line of a quiet `pip install`."""
    return [str(python), "-m", "pip", "install", "--no-input", "--progress-bar=off", *arguments]


def create_environment(venv: Path, log: TextIO) -> None:
    """Create `venv` unless it is an environment already; empty it first if an earlier call was cut short."""
    unfinished = venv / UNFINISHED
    content = [entry for entry in venv.iterdir() if entry.name not in (LOG, UNFINISHED)]
    if unfinished.exists():
        for entry in content:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    elif (venv / "bin" / "python").exists():
        return
    elif content:
        raise InstallError(f"{venv} has files but no working bin/python: remove it or name another VENV")
    check_venv()
    check_disk(shutil.disk_usage(venv).free, FRESH_GB, venv)
    unfinished.touch()
    run_logged([sys.executable, "-m", "venv", str(venv)], venv, log)


def run_code(python: Path, code: str, directory: Path) -> tuple[str, str]:
    """Run `code`; return what it printed, and the last line of its error if it failed (else nothing)."""
    # `directory` counts as a place to import from: not the project's, which may hold a clone of Detectron2.
    done = subprocess.run([str(python), "-c", code], cwd=directory, capture_output=True, text=True)
    error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return done.stdout.strip(), error if done.returncode else ""


def look_into(venv: Path) -> Environment:
    """What the environment `venv` holds; raise InstallError if its Python is too old or does not run."""
    python = venv / "bin" / "python"
    printed, error = run_code(python, LOOK, venv)
    version, _, found = printed.partition("\n")
    problem = python_problem([int(part) for part in version.split()]) if version else ""
    if problem or error:
        raise InstallError(f"{python} cannot be used: {problem or error}")
    values = json.loads(found)
    return Environment(python=python, **{**values, "site_packages": Path(values["site_packages"])})


def install_project(venv: Path, found: Environment, log: TextIO) -> None:
    """Install the project in place and all that pyproject.toml lists."""
    free = shutil.disk_usage(venv).free
    check_disk(free, UPDATE_GB if found.torch else FRESH_GB, venv)
    cache = [] if found.torch or free > (FRESH_GB + CACHE_GB) * 1e9 else ["--no-cache-dir"]
    # A Detectron2 that the user compiled works with the PyTorch it was compiled against and no other.
    hold = found.torch if found.detectron2 and not found.from_wheel else [] if found.torch else TESTED
    run_logged(pip_install(found.python, *cache, "-e", ".[dev]", *hold), venv, log)


def install_detectron2(venv: Path, found: Environment, log: TextIO) -> None:
    """Install Detectron2 unless `found` has one; it appears in site-packages in one piece or not at all."""
    if found.detectron2:
        print(f"Detectron2 is there already and stays as it is: {found.detectron2}")
        return
    staging = venv / "detectron2.partial"
    shutil.rmtree(staging, ignore_errors=True)
    run_logged(pip_install(found.python, *DETECTRON2.split(), f"--target={staging}"), venv, log)
    record = next(staging.glob("*.dist-info"))
    # The wheel's third part, a top-level `tools`, is left behind: it would shadow this project's.
    for part in (record, staging / "detectron2"):  # the package last: its presence says that all is there
        place = found.site_packages / part.name
        shutil.rmtree(place, ignore_errors=True)
        part.replace(place)
    shutil.rmtree(staging)


def remove_stray_tools(site_packages: Path) -> None:
    """Remove the `tools` of a wheel installed by hand, provided that every file in it is the wheel's."""
    stray = site_packages / "tools"
    files = [path for path in stray.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for record in site_packages.glob("sal_detectron2-*.dist-info/RECORD"):
        with record.open(newline="") as stream:
            hashes = {site_packages / row[0]: row[1] for row in csv.reader(stream)}
        if files and all(hashes.get(path) == digest(path) for path in files):
            shutil.rmtree(stray)


def digest(path: Path) -> str:
    """The hash of a file as a wheel's RECORD spells it."""
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return "sha256=" + sha256.decode().rstrip("=")


def check_imports(found: Environment) -> str:
    """Import what matters in the environment and return the versions; raise InstallError if that fails."""
    versions, error = run_code(found.python, CHECK, found.site_packages)
    if error:
        raise InstallError(f"Detectron2 does not import ({found.detectron2 or 'just installed'}): {error}")
    return versions


def take_lock(log: TextIO, venv: Path) -> None:
    """Wait until no other installation writes into `venv`."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another installation into {venv} is running: waiting for it", flush=True)
        fcntl.flock(log, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks: the user's care


def install(venv: Path) -> str:
    """Bring `venv` to the state that pyproject.toml asks for and return the versions installed."""
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / LOG).open("a", buffering=1, encoding="utf-8") as log:
        take_lock(log, venv)
        log.truncate(0)
        create_environment(venv, log)
        found = look_into(venv)
        fresh = "installing PyTorch, Detectron2 and the rest, some minutes and 6 GB,"
        print(f"{'completing' if found.torch else fresh} in {venv} (pip's words: {LOG})", flush=True)
        install_project(venv, found, log)
        (venv / UNFINISHED).unlink(missing_ok=True)  # what follows repairs itself
        install_detectron2(venv, found, log)
        remove_stray_tools(found.site_packages)
        return check_imports(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install this project, PyTorch and Detectron2.")
    parser.add_argument("venv", type=Path, help="the environment: created, or completed if it exists")
    venv = parser.parse_args().venv.absolute()
    start = time.monotonic()
    try:
        print(f"ready in {venv}: {install(venv)} ({time.monotonic() - start:.0f} s)")
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
    except OSError as error:
        reason = f"no space is left on the disk of {venv}" if error.errno == errno.ENOSPC else error
        print(f"install: {reason}", file=sys.stderr)
    except KeyboardInterrupt:
        print("install: interrupted; the next call goes on", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
