"""Look at a detection data set before training: files, sizes, boxes, classes, ids, and splits that overlap.

    prune-transfer check-data digits
    prune-transfer check-data --coco train.json images/train --coco val.json images/val
    prune-transfer check-data --voc datasets/VOC2007 trainval test

The first split is what is trained on; the classes of the others are matched with its own by name. Exit code: 0 nothing
to repair, 1 problems (the table says which of them training refuses), 2 it cannot be read at all, or the classes of two
COCO files do not fit together.
"""

import argparse
import sys
from pathlib import Path

from pruning.errors import Refusal
from study.run.launch import add_config


def main(arguments: argparse.Namespace) -> int:
    """Check and print; returns the exit code."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from study.check_data import check_splits, coco_splits, config_splits, print_checked, voc_splits

    if [arguments.config, arguments.coco, arguments.voc].count(None) != 2:
        raise Refusal("name one thing to look at: a config, or files by --coco, or a folder by --voc")
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
    add_config(parser, "a config with a detector.dataset section", nargs="?")
    parser.add_argument("--coco", nargs=2, action="append", metavar=("JSON", "IMAGES"), help="may be repeated")
    parser.add_argument(
        "--voc", nargs="+", metavar=("ROOT", "SPLIT"), help="a folder of VOC's XML, its image sets (or all)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where generated scenes are (default: runs)")
