"""The words of `prune-transfer prune`: each is a short form of a key of its config, study.config.schema.PruneConfig."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import Refusal
from study.run.launch import add_keys

if TYPE_CHECKING:  # they load PyTorch, which --help need not
    from study.config.load import Change
    from study.config.schema import PruneConfig


# of these a word gives the value as it is
_KEYS = {
    "arch": "classifier.arch",
    "num_classes": "classifier.num_classes",
    "weights": "classifier.weights",
    "seed": "seed",
    "device": "device",
    "target": "prune.target",
    "target_macs": "prune.target_macs",
    "target_params": "prune.target_params",
    "method": "prune.method",
    "skip": "prune.skip",
    "scope": "prune.scope",
    "level": "prune.level",
    "allow_partial": "prune.allow_partial",
    "round_to": "prune.round_to",
    "data_images": "prune.calibration.images",
    "base_epochs": "classifier.train.epochs",
    "cap": "classifier.scratch_b_cap",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line; only words that were given are in its result, besides those of every launcher and `list`."""
    # a word that is not given must not hide what the file, or the schema, says of its key
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("overrides", nargs="*", default=[], metavar="key=value", help="any key of the config, by its path; first")
    add("--config", type=Path, metavar="FILE", help="a YAML file of these keys; other words win over it")
    add_keys(parser, "pruning")
    add("--list", action="store_true", default=False, help="name architectures, methods with options, and targets")
    add("--out", type=Path, metavar="DIR", help="folder to write, absent or empty")
    add("--force", action="store_true", help="replace the files in --out")
    add = parser.add_argument_group("the network").add_argument
    add("--arch", help="architecture (a target has its own)")
    add("--arch-options", help="its options, such as projection_bias=false", nargs="+", metavar="KEY=VALUE")
    add("--num-classes", type=int, metavar="N", help="default: 10 for 32-pixel networks, 1000 for others")
    add("--weights", help="a file, or published: torchvision:TAG, timm:TAG, package:NAME; default: random weights")
    add("--seed", type=int, metavar="N", help="of random weights and random choices (default: 0)")
    add = parser.add_argument_group("what is removed").add_argument
    add("--target", help="a published shape, channels chosen by L1 norms; or:")
    add("--method", help="a pruning method, and")
    add("--ratio", type=float, nargs="+", help="the fraction removed, one for all or one per stage; or:")
    add("--target-macs", type=float, metavar="SHARE", help="of the multiply-adds to leave, by the ratio that does; or:")
    add("--target-params", type=float, metavar="SHARE", help="of the parameters to leave, by the ratio that does")
    add(
        "--layer",
        nargs="+",
        action="extend",
        metavar="LAYER=RATIO",
        help="ratios of layers or patterns (layer2.*=0.3), the first that matches; other layers: --ratio, or whole",
    )
    add("--option", help="options of the method", nargs="+", metavar="KEY=VALUE")
    add("--skip", nargs="+", metavar="LAYER", help="layers or patterns (layer4.*) left whole")
    add("--scope", choices=("inner", "all"), help="layers that no shortcut shares (default), or all")
    add("--level", choices=("layer", "global"), help="the same share of each layer (default), or of the network")
    add("--allow-partial", action="store_true", help="go on where far less than asked can be removed")
    add("--round-to", type=int, metavar="N", help="kept channels become multiples of N")
    add = parser.add_argument_group("images, for methods that look at activations or gradients").add_argument
    add("--data", metavar="NAME|FOLDER", help="a data set of this project, or a folder or zip of class/image")
    add("--data-options", help="options of the data set", nargs="+", metavar="KEY=VALUE")
    of_each = "prune.calibration.per_class=N takes N of each class"
    add("--data-images", type=int, metavar="N", help=f"images to look at (default: 512); {of_each}")
    add("--device", help="device to compute on (default: auto, a GPU if there is one)")
    add = parser.add_argument_group("training budget").add_argument
    add("--base-epochs", type=int, metavar="N", help="of the dense network (default: the target's own, else 160)")
    add("--cap", type=float, metavar="X", help="Scratch-B trains at most X base schedules; 2 on ImageNet")


def read_words(words: Mapping[str, Any]) -> tuple[PruneConfig, Path]:
    """The config that the words of a command line ask for, and --out; `words` has only those that were given."""
    from study.config.load import load_config
    from study.config.schema import PruneConfig

    if "out" not in words:
        raise Refusal("--out DIR is needed, the folder to write into")
    if "target" in words and "option" in words:
        raise Refusal(f"target {words['target']!r} already says what is removed; leave out --option")
    if "data" not in words and ("data_options" in words or "data_images" in words):
        raise Refusal("--data-options and --data-images need --data")
    short = list(_changes(words))
    return load_config(PruneConfig, words.get("config"), words.get("overrides", ()), short), words["out"]


def _changes(words: Mapping[str, Any]) -> Iterator[Change]:
    """What the short forms say of the config."""
    from study.config.load import Change

    for word, key in _KEYS.items():
        if word in words:
            yield Change(_flag(word, words[word]), key, words[word])
    for word, key in (("option", "prune.options"), ("arch_options", "classifier.options")):
        if word in words:
            yield Change(_flag(word, words[word]), key, read_pairs(f"--{word.replace('_', '-')}", words[word]))
    if "ratio" in words:
        value = words["ratio"][0] if len(words["ratio"]) == 1 else words["ratio"]
        yield Change(_flag("ratio", words["ratio"]), "prune.ratio", value)
    if "layer" in words:
        yield Change(_flag("layer", words["layer"]), "prune.layers", _read_layers(words["layer"]))
    if "data" in words:
        options = read_pairs("--data-options", words.get("data_options", ()))
        yield Change(_flag("data", words["data"]), "classifier.dataset", _source(words["data"], options))


def _flag(word: str, value: object) -> str:
    """A word and its value as they were written."""
    values = [] if value is True else value if isinstance(value, list) else [value]
    return " ".join([f"--{word.replace('_', '-')}", *map(str, values)])


def _source(name: str, options: dict[str, object]) -> object:
    """The value of `classifier.dataset`: a section for a data set by name, else a path."""
    from classify.data import DATASETS

    if name in DATASETS:
        return {"name": name, "options": options}
    if options:
        raise Refusal(f"--data {name}: a folder takes no options, not {', '.join(options)}")
    return name


def read_pairs(owner: str, pairs: Sequence[str]) -> dict[str, object]:
    """`key=value` words, values as in YAML; ValueError names the `owner` of a word that is none."""
    from study.config.load import parse_value

    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise Refusal(f"{owner} {pair!r} is not of the form key=value")
        if key in found:
            raise Refusal(f"{owner} names {key!r} twice")
        found[key] = parse_value(text, source=f"{owner} {pair!r}")
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
            raise Refusal(f"--layer {word!r} is not of the form layer=ratio, such as 'layer2.*=0.3'")
        if layer in ratios:
            raise Refusal(f"--layer names {layer!r} twice")
        ratios[layer] = ratio
    return ratios
