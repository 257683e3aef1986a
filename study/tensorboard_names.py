"""Readable names for TensorBoard: links in the study's directory to its run directories."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from study.stages import Stage

FOLDER = "tensorboard"


def name_runs(out: Path, stages: Sequence[Stage], labels: dict[str, str], runs: Path) -> None:
    """Make `out/tensorboard/<label>` for every stage that trains; where labels are equal the hash tells them apart."""
    trained = [stage for stage in stages if stage.kind.startswith("train_")]
    names = {stage.id: re.sub(r"[^\w.,=+-]+", "_", labels[stage.id]).strip("_") for stage in trained}
    count = Counter(names.values())
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for stage in trained:
        name = names[stage.id]
        link = folder / (name if count[name] == 1 else f"{name}-{stage.hash}")
        target = os.path.relpath(stage.run(runs).path, folder)
        if not link.is_symlink():
            link.symlink_to(target)
