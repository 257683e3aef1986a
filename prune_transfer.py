"""prune-transfer as it is installed: its version, whether its packages are found, and its command line.

It stands beside the packages, under a name that no file of a user's has: they are called after what is in them, and
whoever has a detect.py, as YOLOv5 does, hides one of them. It needs nothing but the standard library to say so.
"""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

PACKAGES = ("pruning", "training", "classify", "detect", "study")  # each may import those before it

try:
    __version__ = importlib.metadata.version("prune-transfer")
except importlib.metadata.PackageNotFoundError:  # a copy of the files that was never installed
    __version__ = "unknown"


def check_packages(*names: str) -> None:
    """ImportError, in one sentence, where something else comes first that is called as one of these packages."""
    for name in names:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin) if spec and spec.origin else None
        if found is None:
            raise ImportError(f"prune-transfer has lost its package {name!r}: install it again")
        if found.resolve() != (Path(__file__).parent / name / "__init__.py").resolve():
            raise ImportError(
                f"{found} hides prune-transfer's package {name!r}: rename it, start in another folder, or take its"
                " folder off PYTHONPATH"
            )


def main(*words: str) -> int:
    """Do what the words of a command line ask, those of this process if none are given; the exit code."""
    try:
        check_packages(*PACKAGES)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from study.commands.main import run_command  # now that these are known to be ours

    return run_command(words or sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
