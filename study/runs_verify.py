"""Is every run of a folder as it was written, and is all that it was made from still there?"""

from pathlib import Path

import yaml

from study.runs_states import is_locked, run_folders
from study.stages import load_stage
from study.store import RunDir


def verify_runs(runs: Path) -> tuple[int, list[str]]:
    """The number of finished runs, and a sentence for each fault of any run: checksums, hashes, missing parents."""
    faults: list[str] = []
    finished = 0
    for folder in run_folders(runs):
        run = RunDir(folder)
        if run.done:
            finished += 1
            faults += run_faults(run)
        elif not is_locked(run.lock):
            faults += [f"{file}: left by a process that was killed" for file in sorted(folder.glob(".*.partial"))]
    return finished, faults


def run_faults(run: RunDir) -> list[str]:
    """What is wrong with a finished run, in sentences."""
    try:
        result = run.read_result()
    except ValueError as error:
        return [str(error)]
    found = []
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
