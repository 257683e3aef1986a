"""The words of `tools/prune.py`: what may be said on its command line, and the job that it asks for."""

import argparse
from pathlib import Path
from typing import Any

_PAIRS: dict[str, Any] = {"nargs": "+", "metavar": "KEY=VALUE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line; only words that were given are in its result, besides those of every launcher and `list`."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--list", action="store_true", default=False, help="name architectures, methods with options, and targets")
    add("--out", type=Path, metavar="DIR", help="folder to write, absent or empty")
    add("--force", action="store_true", help="replace the files in --out")
    add = parser.add_argument_group("the network").add_argument
    add("--arch", help="architecture (a target has its own)")
    add("--arch-options", help="its options, such as projection_bias=false", **_PAIRS)
    add("--num-classes", type=int, metavar="N", help="default: 10 for 32-pixel networks, 1000 for others")
    add("--weights", type=Path, metavar="FILE", help="safetensors or a PyTorch checkpoint; default: random weights")
    add("--seed", type=int, metavar="N", help="of random weights and random choices (default: 0)")
    add = parser.add_argument_group("what is removed").add_argument
    add("--target", help="a published shape, channels chosen by L1 norms; or:")
    add("--method", help="a pruning method, and")
    add("--ratio", type=float, nargs="+", help="the fraction removed, one for all or one per stage")
    add(
        "--layer",
        nargs="+",
        action="extend",
        metavar="LAYER=RATIO",
        help="ratios of layers or patterns (layer2.*=0.3), the first that matches; other layers: --ratio, or whole",
    )
    add("--option", help="options of the method", **_PAIRS)
    add("--skip", nargs="+", metavar="LAYER", help="layers or patterns (layer4.*) left whole")
    add("--scope", choices=("inner", "all"), help="layers that no shortcut shares (default), or all")
    add(
        "--level",
        choices=("layer", "global"),
        help="the same share of each layer (default), or of the network",
    )
    add("--allow-partial", action="store_true", help="go on where far less than asked can be removed")
    add("--round-to", type=int, metavar="N", help="kept channels become multiples of N")
    add = parser.add_argument_group("images, for methods that look at activations or gradients").add_argument
    add("--data", metavar="NAME|FOLDER", help="a data set of this project, or a folder or zip of class/image")
    add("--data-options", help="options of the data set", **_PAIRS)
    add("--data-images", type=int, metavar="N", help="images to look at (default: 256)")
    add = parser.add_argument_group("training budget").add_argument
    add("--base-epochs", type=int, metavar="N", help="of the dense network (default: the target's own, else 160)")
    add("--cap", type=float, metavar="X", help="Scratch-B trains at most X base schedules; 2 on ImageNet")
