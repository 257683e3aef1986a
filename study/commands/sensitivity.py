"""Prune each layer of a trained classifier alone and measure what accuracy it loses.

    prune-transfer sensitivity runs/train_classifier-<hash>/seed0 --out sensitivity
    prune-transfer sensitivity RUN --method taylor --ratios 0.1 0.2 0.3 0.4 0.5 --images 5000 --out finer

It says which layers to leave whole (`prune.skip`) and how far to go in others (`prune.layers`). Nothing is retrained;
measured are images of the validation split, never of the test split. The folder gets sensitivity.csv and the curves,
sensitivity.html. The last line printed is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)


def main(arguments: argparse.Namespace) -> int:
    """Measure and write; returns the exit code."""
    from rich.console import Console  # late: PyTorch takes seconds to load, which --help need not

    from pruning.methods import DEFAULT
    from study.config.sections import Machine
    from study.prune_one.arguments import read_pairs
    from study.sensitivity.measure import Asked
    from study.sensitivity.show import sensitivity

    options = read_pairs("--option", arguments.option)
    asked = Asked(arguments.ratios, arguments.method or DEFAULT, options, arguments.scope, arguments.images)
    found = sensitivity(
        arguments.run,
        asked,
        Machine(device=arguments.device, data_root=arguments.data_root),
        out=arguments.out,
        tolerance=arguments.tolerance,
        console=Console(width=None if sys.stdout.isatty() else 160),
        force=arguments.force,
    )
    print(json.dumps(found))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    add, usual = parser.add_argument, " ".join(map(str, RATIOS))
    add("run", type=Path, metavar="RUN", help="run directory of a trained classifier")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write, absent or empty")
    add("--force", action="store_true", help="replace the files in --out")
    add("--ratios", type=float, nargs="+", default=RATIOS, metavar="RATIO", help=f"to remove (default: {usual})")
    add("--method", help="which channels go first (default: l1_filter)")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE", help="options of the method")
    add("--scope", choices=("inner", "all"), default="inner", help="layers that no shortcut shares (default), or all")
    add("--images", type=int, default=2000, metavar="N", help="validation images, at most (default: 2000)")
    add("--tolerance", type=float, default=5.0, metavar="POINTS", help="what one layer may lose (default: 5)")
    add("--device", default="auto", help="device to compute on (default: auto, a GPU if there is one)")
    add("--data-root", type=Path, default=Path("data"), metavar="DIR", help="folder of data sets (default: data)")
