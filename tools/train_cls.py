"""Train one classifier: from random weights, or a pruned architecture by the regime that the config names.

python tools/train_cls.py configs/classify/digits_resnet10.yaml
python tools/train_cls.py configs/classify/digits_resnet10.yaml regime=scratch_e --pruned runs/prune-<hash>/seed0
torchrun --nproc_per_node=4 tools/train_cls.py configs/classify/cifar10.yaml   (4 GPUs, or processes on the CPU)
"""

import argparse
import sys
from pathlib import Path

from study.run.launch import add_keys, command, finish


def main(arguments: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from study.run.single import train_classifier_alone  # late: PyTorch takes seconds to load, which --help need not

    found = train_classifier_alone(arguments.config, arguments.overrides, pruned=arguments.pruned, runs=arguments.runs)
    return 0 if found is None else finish(*found)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "config", type=Path, help="a classification config, such as configs/classify/digits_resnet10.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    add_keys(parser, "classifier")
    parser.add_argument(
        "--pruned", type=Path, metavar="RUN", help="run directory of a pruned network (regimes but base)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")


if __name__ == "__main__":
    sys.exit(command(__doc__, add_arguments, main, intermixed=True))
