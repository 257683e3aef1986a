"""The comparison: stages, pipelines, execution, report.

What a study found, for a notebook or a script:

    import study

    found = study.load_comparison("runs/digits")
    print(found.rows[0].pipeline, found.rows[0].number("AP"), found.claims)
    table = found.frame()  # with pandas installed
"""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from prune_transfer import __version__ as __version__
from prune_transfer import check_packages

if TYPE_CHECKING:
    from study.report.rows import Comparison

check_packages("pruning", "training", "classify", "detect")

__all__ = ["load_comparison"]

# Libraries speak of their own future at import and while they trace; in a log of a study it is noise.
warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script.*")
warnings.filterwarnings("ignore", category=UserWarning, message="torch.meshgrid.*")
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def load_comparison(path: str | Path) -> "Comparison":
    """What a study found, in typed rows and claims; `path`: its directory, or a comparison.json.

    ValueError says in one sentence what is wrong with the path or the file.
    """
    from study.report.rows import load_comparison as load  # late: it loads PyTorch, which `--help` need not

    return load(Path(path))
