"""Train and evaluate one detector around a classifier's run directory, dense or pruned.

python tools/train_det.py configs/detect/digits_fpn.yaml --backbone runs/train_classifier-<hash>/seed0
python tools/train_det.py configs/detect/digits_fpn.yaml init=random --backbone runs/prune-<hash>/seed0
"""

import argparse
import sys
from pathlib import Path

from study.launch import finish, launch
from study.single import train_detector_alone


def main(arguments: argparse.Namespace) -> int:
    """Train and evaluate; returns the exit code."""
    out, outcome = train_detector_alone(
        arguments.config, arguments.overrides, backbone=arguments.backbone, runs=arguments.runs
    )
    return finish(out, outcome)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a detection config, such as configs/detect/digits_fpn.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the file, by key path")
    parser.add_argument("--backbone", type=Path, required=True, metavar="RUN", help="run directory of a classifier")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
    sys.exit(launch(lambda: main(parser.parse_intermixed_args())))
