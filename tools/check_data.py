"""Look at a detection data set before training: files, sizes, boxes, classes, ids, and splits that overlap.

    python tools/check_data.py configs/pipelines/digits.yaml
    python tools/check_data.py --coco train.json images/train --coco val.json images/val
    python tools/check_data.py --voc datasets/VOC2007 trainval test

The first split is what is trained on; the classes of the others are matched with its own by name. Exit code: 0 nothing
to repair, 1 problems (the table says which of them training refuses), 2 it cannot be read at all, or the classes of two
COCO files do not fit together.
"""

import argparse
import sys
from pathlib import Path

from study.run.launch import command


def main(arguments: argparse.Namespace) -> int:
    """Check and print; returns the exit code."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from study.check_data import check_splits, coco_splits, config_splits, print_checked, voc_splits

    if arguments.coco:
        splits = coco_splits(arguments.coco)
    elif arguments.voc:
        splits = voc_splits(Path(arguments.voc[0]), arguments.voc[1:])
    else:
        splits = config_splits(arguments.config, arguments.runs)
    checked = check_splits(splits)
    print_checked(checked, Console(width=None if sys.stdout.isatty() else 160))
    return 0 if all(split.sound for split in checked.values()) else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("config", type=Path, nargs="?", help="a config with a detector.dataset section")
    source.add_argument("--coco", nargs=2, action="append", metavar=("JSON", "IMAGES"), help="may be repeated")
    source.add_argument(
        "--voc", nargs="+", metavar=("ROOT", "SPLIT"), help="a folder of VOC's XML, its image sets (or all)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where generated scenes are (default: runs)")


if __name__ == "__main__":
    sys.exit(command(__doc__, add_arguments, main))
