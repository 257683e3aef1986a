"""Prune one network, without a study; writes plan.json, weights.safetensors and channels.png.

    prune-transfer prune --list
    prune-transfer prune --target resnet56-B --out pruned/resnet56-B
    prune-transfer prune --arch resnet50 --method l1_filter --ratio 0.5 --weights mine.pth --out pruned/mine
    prune-transfer prune --arch resnet50 --method l1_filter --ratio 0.5 --weights torchvision:DEFAULT --out pruned/r50
    prune-transfer prune --arch resnet34 --method l1_filter --layer 'layer2.*=0.3' layer3.0.conv1=0.5 --out pruned/few
    prune-transfer prune --arch resnet20 --method thinet --ratio 0.3 --data digits --out pruned/thinet
    prune-transfer prune classifier.arch=resnet20 prune.method=thinet prune.ratio=0.3 --data digits --out pruned/same
    prune-transfer prune --keys

The last line printed is JSON: sizes of the pruned and of the dense network, and the epochs of Scratch-B.
"""

import argparse
import json

from study.prune_one.arguments import add_arguments, read_words

__all__ = ["add_arguments", "main"]


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
