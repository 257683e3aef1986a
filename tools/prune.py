"""Prune one network, without a study; writes plan.json, weights.safetensors and channels.png.

    python tools/prune.py --list
    python tools/prune.py --target resnet56-B --out pruned/resnet56-B
    python tools/prune.py --arch resnet50 --method l1_filter --ratio 0.5 --weights mine.pth --out pruned/mine
    python tools/prune.py --arch resnet50 --method l1_filter --ratio 0.5 --weights torchvision:DEFAULT --out pruned/r50
    python tools/prune.py --arch resnet34 --method l1_filter --layer 'layer2.*=0.3' layer3.0.conv1=0.5 --out pruned/few
    python tools/prune.py --arch resnet20 --method thinet --ratio 0.3 --data digits --out pruned/thinet
    python tools/prune.py classifier.arch=resnet20 prune.method=thinet prune.ratio=0.3 --data digits --out pruned/same
    python tools/prune.py --keys

The last line printed is JSON: sizes of the pruned and of the dense network, and the epochs of Scratch-B.
"""

import argparse
import json
import sys

from study.prune_one.arguments import add_arguments, read_words
from study.run.launch import command


def main(arguments: argparse.Namespace) -> int:
    """List or prune; returns the exit code."""
    from study.prune_one.catalogue import catalogue  # late: PyTorch takes seconds to load, which --help need not
    from study.prune_one.prune import prune_alone

    if arguments.list:
        print(catalogue())
    else:
        config, out = read_words(vars(arguments))
        print(json.dumps(prune_alone(config, out, force="force" in arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(command(__doc__, add_arguments, main, intermixed=True))
