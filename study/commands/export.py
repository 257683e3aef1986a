"""Write the network of a finished run as TorchScript or ONNX, with a JSON that says how to use it.

    prune-transfer export runs/prune-<hash>/seed0 --format onnx
    prune-transfer export runs/train_detector-<hash>/seed0 --format torchscript --out detector.pt

Before it is written, the file is checked against PyTorch on other images, sizes and batches than the one traced. ONNX
needs onnx and onnxruntime.
The last line printed is the JSON.
"""

import argparse
import json
from pathlib import Path


def main(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from study.export import export_run

    size = tuple(arguments.image_size) if arguments.image_size else None
    print(json.dumps(export_run(arguments.run, arguments.format, out=arguments.out, image_size=size)))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "run", type=Path, help="run directory of train_classifier, prune, train_detector, prune_detector"
    )
    parser.add_argument("--format", metavar="FORMAT", required=True, help="torchscript or onnx")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: in the run directory")
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("H", "W"), help="default: the size it was trained for"
    )
