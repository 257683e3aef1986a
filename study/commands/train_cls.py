"""Train one classifier: from random weights, or a pruned architecture by the regime that the config names.

prune-transfer train-cls digits_resnet10
prune-transfer train-cls digits_resnet10 regime=scratch_e --pruned runs/prune-<hash>/seed0
torchrun --nproc_per_node=4 -m prune_transfer train-cls cifar10   (4 GPUs, or processes on the CPU)
"""

import argparse
from pathlib import Path

from study.run.launch import add_config, add_keys, finish


def main(arguments: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from study.run.single import train_classifier_alone  # late: PyTorch takes seconds to load, which --help need not

    found = train_classifier_alone(arguments.config, arguments.overrides, pruned=arguments.pruned, runs=arguments.runs)
    return 0 if found is None else finish(*found)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    add_config(parser, "a classification config", "classify")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    add_keys(parser, "classifier")
    parser.add_argument(
        "--pruned", type=Path, metavar="RUN", help="run directory of a pruned network (regimes but base)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
