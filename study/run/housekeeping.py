"""Is every run of a folder as it was written, and is all that it was made from still there?"""

import shutil
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from pruning.errors import Refusal
from study.run.study import STUDY_FILE, load_written_study
from study.run.watch import RunInfo, is_locked, list_runs, run_folders
from study.stages.stage import load_stage
from study.stages.store import RunDir


def verify_runs(runs: Path) -> tuple[int, list[str]]:
    """The number of finished runs, and a sentence for each fault of any run: checksums, hashes, missing parents."""
    faults: list[str] = []
    finished = 0
    for folder in run_folders(runs):
        run = RunDir(folder)
        if run.done:
            finished += 1
            faults += run_faults(run)
        # of a run that a process is at work on such a file may be in use
        elif not is_locked(run.lock):
            faults += [f"{file}: left by a process that was killed" for file in sorted(folder.glob(".*.partial"))]
    # a changed config is a fault of its own run and, as an ancestor's, of every run behind it
    once: dict[Path, str] = {}
    for fault in faults:
        once.setdefault(_subject(fault), fault)
    return finished, list(once.values())


def _subject(fault: str) -> Path:
    """The file or run that a sentence is about, as which it counts once.

    A run that is not what its name says is also a wrong parent of others, and its config is not the file it wrote.
    """
    path = Path(fault.partition(": ")[0]).resolve()
    return path.parent if path == RunDir(path.parent).config else path


def run_faults(run: RunDir) -> list[str]:
    """What is wrong with a finished run, in sentences."""
    try:
        result = run.read_result()
    except ValueError as error:
        return [str(error)]
    found = []
    # both ways: what is recorded must be there as it was, and what is there must be recorded
    recorded = {run.path / name for name in result["artifacts"]}
    for file in sorted(recorded):
        try:
            run.whole(file)
        except ValueError as error:
            found.append(str(error))
    found += [f"{file}: the run did not write this file" for file in run.artifacts() if file not in recorded]
    try:
        load_stage(run.path)  # its name is the hash of its content, and so is every ancestor's
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        found.append(str(error) if isinstance(error, ValueError) else f"{run.config}: not a stage's config ({error})")
    return found


def unused_runs(runs: Path) -> list[RunInfo]:
    """The runs that no study needs; ValueError if a study cannot be read, since then nobody knows what it needs."""
    # Nothing is removed on half the knowledge: one study that cannot be read may need any of the runs.
    needed: set[str] = set()
    for file in sorted(runs.glob(f"*/{STUDY_FILE}")):
        try:
            _, _, plan = load_written_study(file.parent)
        except ValueError as error:
            raise Refusal(f"{file}: what this study needs cannot be told, so nothing is removed: {error}") from error
        needed |= {stage.id for stage in plan.named_stages(RunDir(file.parent))[0]}
    return [info for info in list_runs(runs) if info.id not in needed]


def remove_runs(found: list[RunInfo]) -> list[RunInfo]:
    """Remove these runs, but for those that a process works on; returns the removed."""
    return [info for info in found if _remove(info.run)]


def _remove(run: RunDir) -> bool:
    try:
        with FileLock(run.lock, timeout=0):
            run.result.unlink(missing_ok=True)  # first: a run that is half removed is not a finished one
            shutil.rmtree(run.path)  # the lock's file too, which is held open until the block ends
    except Timeout:
        return False
    # the folder of a hash goes with its last seed
    if not any(run.path.parent.iterdir()):
        run.path.parent.rmdir()
    return True
