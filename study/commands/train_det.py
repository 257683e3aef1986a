"""Train and evaluate one detector around a classifier's run directory, dense or pruned.

prune-transfer train-det digits_fpn --backbone runs/train_classifier-<hash>/seed0
prune-transfer train-det digits_fpn init=random --backbone runs/prune-<hash>/seed0
prune-transfer train-det coco_fpn --backbone RUN --num-gpus 8
prune-transfer train-det coco_fpn --backbone RUN --num-gpus 8 --num-machines 2 --machine-rank 0 \\
    --dist-url tcp://10.0.0.1:29500   (and --machine-rank 1 on the other machine; both see the same --runs)
prune-transfer train-det other.yaml --eval-only runs/train_detector-<hash>/seed0   (scores it on other.yaml's test set)
"""

import argparse
from pathlib import Path

from pruning.errors import Refusal
from study.run.launch import add_config, add_keys, finish


def main(arguments: argparse.Namespace) -> int:
    """Train and evaluate; returns the exit code."""
    from detect.processes import Processes  # late: loading Detectron2 takes seconds, --help need not
    from study.run.single import (  # late: PyTorch takes seconds to load, which --help need not
        evaluate_detector_alone,
        train_detector_alone,
        train_detector_together,
    )

    config, overrides = arguments.config, arguments.overrides
    where = {"backbone": arguments.backbone, "runs": arguments.runs}
    processes = Processes(arguments.num_gpus, arguments.num_machines, arguments.machine_rank, arguments.dist_url)
    if arguments.eval_only is not None:
        if processes.total > 1:
            raise Refusal("--eval-only scores in one process; leave out --num-gpus and --num-machines")
        return finish(*evaluate_detector_alone(config, overrides, run=arguments.eval_only, runs=arguments.runs))
    if processes.total > 1:
        return train_detector_together(config, overrides, **where, processes=processes)
    return finish(*train_detector_alone(config, overrides, **where))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    add_config(parser, "a detection config", "detect")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    add_keys(parser, "detector")
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--backbone", type=Path, metavar="RUN", help="train around the classifier of this run directory")
    work.add_argument("--eval-only", type=Path, metavar="RUN", help="train nothing, score the detector of this one")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
    # Detectron2's options, by its names
    group = parser.add_argument_group("several GPUs (as in Detectron2; without GPUs, processes on the CPU)")
    group.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine, a process each (default: 1)")
    group.add_argument("--num-machines", type=int, default=1, help="machines, each given this command (default: 1)")
    group.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    group.add_argument("--dist-url", default="auto", metavar="URL", help="where processes meet (default: a free port)")
