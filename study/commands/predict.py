"""Draw what a detector finds on pictures, and write it as COCO JSON.

    prune-transfer predict runs/train_detector-<hash>/seed0 photos/ --out found
    prune-transfer predict detector.onnx a.jpg b.png --score 0.3

The detector is a run directory, or a file that `prune-transfer export` wrote with its JSON beside it. Pictures are read
as in an evaluation. The folder gets pictures/ and detections.coco.json. The last line printed is JSON: counts, notes,
folder.
"""

import argparse
import json
from pathlib import Path


def main(arguments: argparse.Namespace) -> int:
    """Look and write; returns the exit code."""
    from study.predict import predict  # late: PyTorch takes seconds to load, which --help need not

    found = predict(
        arguments.source,
        arguments.pictures,
        out=arguments.out,
        min_score=arguments.score,
        force=arguments.force,
    )
    print(json.dumps(found))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("source", type=Path, metavar="RUN", help="run directory of a detector, or an exported file")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGES", help="pictures, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="default: predictions")
    parser.add_argument("--score", type=float, default=0.5, help="least score of what is shown (default: 0.5)")
    parser.add_argument("--force", action="store_true", help="replace files that are in the folder already")
