"""The words of `tools/prune.py`: what may be said on its command line, and the job that it asks for."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from study.calibration import ImageSource
from study.prune_job import PruneJob

_SELECTION = ("ratio", "skip", "scope", "level", "round_to")
_PAIRS: dict[str, Any] = {"nargs": "+", "metavar": "KEY=VALUE"}


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose result has only the words that were given, and `list`."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
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
    add("--round-to", type=int, metavar="N", help="kept channels become multiples of N")
    add = parser.add_argument_group("images, for methods that look at activations or gradients").add_argument
    add("--data", metavar="NAME|FOLDER", help="a data set of this project, or a folder or zip of class/image")
    add("--data-options", help="options of the data set", **_PAIRS)
    add("--data-images", type=int, metavar="N", help="images to look at (default: 256)")
    add = parser.add_argument_group("training budget").add_argument
    add("--base-epochs", type=int, metavar="N", help="of the dense network (default: the target's own, else 160)")
    add("--cap", type=float, metavar="X", help="Scratch-B trains at most X base schedules; 2 on ImageNet")
    return parser


def job_from_words(words: Mapping[str, Any]) -> PruneJob:
    """The job that the words of a command line ask for; `words` has only those that were given."""
    given = dict(words)
    if "out" not in given:
        raise ValueError("--out DIR is needed, the folder to write into")
    selection = {key: given.pop(key) for key in _SELECTION if key in given}
    if "ratio" in selection:
        selection["ratio"] = selection["ratio"][0] if len(selection["ratio"]) == 1 else tuple(selection["ratio"])
    if "skip" in selection:
        selection["skip"] = tuple(selection["skip"])
    if "layer" in given:
        selection["layers"] = _read_layers(given.pop("layer"))
    options = read_pairs("--option", given.pop("option", ()))
    arch_options = read_pairs("--arch-options", given.pop("arch_options", ()))
    data_options = read_pairs("--data-options", given.pop("data_options", ()))
    if "data" in given:
        count = {"n_images": given.pop("data_images")} if "data_images" in given else {}
        given["data"] = ImageSource(given["data"], data_options, **count)
    elif data_options or "data_images" in given:
        raise ValueError("--data-options and --data-images need --data")
    return PruneJob(**given, arch_options=arch_options, options=options, selection=selection)


def read_pairs(owner: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` words, values as in YAML; ValueError names the `owner` of a word that is none."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{owner} {pair!r} is not of the form key=value")
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{owner} {pair!r}: the value is not valid YAML") from error
    return found


def _read_layers(words: Sequence[str]) -> dict[str, float]:
    """Ratios by layer or pattern."""
    ratios: dict[str, float] = {}
    for word in words:
        layer, equals, text = word.rpartition("=")
        try:
            ratio = float(text)
        except ValueError:
            layer = ""
        if not layer or not equals:
            raise ValueError(f"--layer {word!r} is not of the form layer=ratio, such as 'layer2.*=0.3'")
        if layer in ratios:
            raise ValueError(f"--layer names {layer!r} twice")
        ratios[layer] = ratio
    return ratios
