"""Build the project's environment: PyTorch, Detectron2, the project itself and what its tests need.

    python3 tools/install.py .venv

The Makefile calls it. It runs before anything is installed, so it uses the standard library only, and any Python from
3.6 on must be able to parse it, to be told that it is too old.
"""

import fcntl
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Upstream publishes nothing for current Python or PyTorch. This wheel's tag says CPython 3.10, for a compiled
# extension that this project does not use: hence the options.
DETECTRON2 = "--no-deps --only-binary=:all: --python-version=3.10 --implementation=cp sal-detectron2==0.7.2"
# What it says of itself and is not so of its Python code, with which `pip check` would find fault: file, words, truth.
FALSE_CLAIMS = (
    ("METADATA", r"^Requires-Dist: (?:numpy<2|black)\n", ""),  # it runs with NumPy 2; black formats its source
    ("WHEEL", r"^Tag: .*$", "Tag: py3-none-any"),
)
# The newest PyTorch that this project was run with; an environment that has a PyTorch keeps its own.
TESTED = ["torch<2.15", "torchvision<0.30"]
FRESH_GB = 10.0 if sys.platform == "linux" else 3.0  # PyTorch's Linux builds bring CUDA; wheels while they are unpacked
# what pip says, and what the user reads instead; the first match counts, so causes come before consequences
CAUSES = (
    ("No space left on device|Disk quota exceeded", "no space is left on the disk"),
    (
        "[Cc]onnection broken|Failed to establish a new connection|name resolution|Network is unreachable|[Tt]imed out",
        "the package index cannot be reached, and an installation needs the network",
    ),
    (r"Cannot install (.+) because .* conflicting", "these do not go together: {0}"),
    ("apt install (python[0-9.]*-venv)", "this Python cannot create environments: `apt install {0}`, or name another"),
    ("No matching distribution found for ([^\\s(]+)", "the package index has no {0} for this Python and system"),
)
# Runs in the environment's own Python.
LOOK = """
import importlib.metadata as metadata, importlib.util, json, sysconfig
names = {d.metadata["Name"]: d.version for d in metadata.distributions()}
spec = importlib.util.find_spec("detectron2")  # a mere folder of that name has no origin
print(json.dumps({"site_packages": sysconfig.get_path("purelib"), "detectron2": spec and spec.origin or "",
    "from_wheel": "sal-detectron2" in names and "detectron2" not in names, "pip": "pip" in names,
    "torch": [f"{name}=={names[name]}" for name in ("torch", "torchvision") if name in names]}))
"""
CHECK = """
import detectron2.model_zoo, detectron2.modeling, sys, torch, torchvision
print("Python %d.%d.%d, torch %s, torchvision %s, detectron2 %s" % (*sys.version_info[:3], torch.__version__,
    torchvision.__version__, detectron2.__version__))
"""


def python_problem(version) -> str:
    """What is wrong with a Python of this `version` (as `sys.version_info`); empty if nothing is."""
    found = ".".join(str(part) for part in version[:3])
    needed = "is too old, 3.11 or newer is needed: name one, as in `make PYTHON=python3.12`"
    return f"Python {found} {needed}" if tuple(version[:2]) < (3, 11) else ""


def explain(output: str) -> str:
    """One line for the output of a command that failed."""
    for pattern, known in CAUSES:
        match = re.search(pattern, output)
        if match:
            return known.format(*match.groups())
    return ([line for line in output.splitlines() if line.strip()] or ["no output"])[-1].strip()


def run(log: Path, *command: object, cwd: Path = ROOT) -> str:
    """What `command` prints, which `log` keeps; exits with one sentence if it fails."""
    done = subprocess.run([*map(str, command)], cwd=str(cwd), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(map(str, command))}\n{output}")
    if done.returncode:
        sys.exit(f"install: {explain(output)} (all of the output: {log})")
    return output


def look_into(python: Path, log: Path) -> dict:
    """What an environment holds: where packages go, its PyTorch, where its Detectron2 is and whose."""
    version = run(log, python, "-c", "import sys; print(*sys.version_info[:3])", cwd=log.parent).split()
    problem = python_problem([int(part) for part in version])
    if problem:
        sys.exit(f"install: {python} cannot be used: {problem}")
    return json.loads(run(log, python, "-c", LOOK, cwd=log.parent))  # not from a folder that may hold a Detectron2


def install_detectron2(pip: list, site_packages: Path, log: Path) -> None:
    """Put the wheel's package into place, last and in one piece.

    Its top-level `tools`, which would shadow this project's, is left behind.
    """
    staging = log.parent / "detectron2.partial"
    shutil.rmtree(str(staging), ignore_errors=True)
    run(log, *pip, *DETECTRON2.split(), f"--target={staging}")
    about = next(staging.glob("*.dist-info"))
    for name, wrong, right in FALSE_CLAIMS:
        claims = (about / name).read_text(encoding="utf-8")
        (about / name).write_text(re.sub(wrong, right, claims, flags=re.MULTILINE), encoding="utf-8")
    for part in (about, staging / "detectron2"):
        shutil.rmtree(str(site_packages / part.name), ignore_errors=True)
        part.replace(site_packages / part.name)
    shutil.rmtree(str(staging))


def install(venv: Path) -> str:
    """Bring `venv` to the state that pyproject.toml asks for; returns the versions installed."""
    python, log = venv / "bin" / "python", venv / "install.log"
    log.write_text("")
    if not python.exists():
        if [entry for entry in venv.iterdir() if entry.name not in ("install.log", ".lock")]:
            sys.exit(f"install: {venv} has files but no working bin/python: remove it or name another VENV")
        free = shutil.disk_usage(str(venv)).free / 1e9
        if free < FRESH_GB:
            sys.exit(f"install: {venv} has {free:.1f} GB free, an installation needs {FRESH_GB:.0f} GB: make room, or "
                     "name a directory on another disk, as in `make VENV=/data/venv`")  # fmt: skip
        run(log, sys.executable, "-m", "venv", venv)
    found = look_into(python, log)
    print(f"installing into {venv}, a new PyTorch takes minutes and 6 GB (pip's words: {log.name})", flush=True)
    # A Detectron2 that the user compiled works with the PyTorch it was compiled against and no other.
    hold = TESTED if not found["torch"] else found["torch"] if found["detectron2"] and not found["from_wheel"] else []
    if not found["pip"]:  # whoever created the environment was cut short
        run(log, python, "-m", "ensurepip")
    pip = [python, "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    run(log, *pip, "-e", ".[dev]", *hold)
    if found["detectron2"]:
        print(f"Detectron2 is there already and stays as it is: {found['detectron2']}")
    else:
        install_detectron2(pip, Path(found["site_packages"]), log)
    return run(log, python, "-c", CHECK, cwd=venv).strip().splitlines()[-1]


if __name__ == "__main__":
    if python_problem(sys.version_info) or len(sys.argv) != 2:
        sys.exit("install: " + (python_problem(sys.version_info) or "usage: install.py FOLDER_OF_THE_ENVIRONMENT"))
    folder = Path(sys.argv[1]).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:  # two `make` at once must not write into one environment
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(f"ready in {folder}: {install(folder)}")
    except KeyboardInterrupt:
        sys.exit("install: interrupted; the next call goes on")
    except OSError as problem:
        sys.exit(f"install: {problem}")
