"""What is asked of the one-command pruner, checked before any work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classify.calibration import ImageSource
from pruning.errors import Refusal
from pruning.targets import Target, get_target
from study.config.load import parse_value


@dataclass(frozen=True)
class PruneJob:
    """What to prune and how; None: not said, so that the target's or the network's own value holds.

    `target`, or `method` with its `options` and the parts of its `selection` (see `pruning.select.Selection`).
    `cap`: Scratch-B trains at most this many times `base_epochs`. `allow_partial`: far less than asked may go.
    """

    out: Path
    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    target: str | None = None
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    data: ImageSource | None = None
    base_epochs: int | None = None
    cap: float | None = None
    seed: int = 0
    force: bool = False
    allow_partial: bool = False

    def __post_init__(self) -> None:
        if (self.target is None) == (self.method is None):
            raise Refusal("give either --target, or --method with --ratio (--list names both)")
        if self.target is not None and (self.selection or self.options):
            given = ", ".join([*self.selection, *(f"option {name}" for name in self.options)])
            raise Refusal(f"target {self.target!r} already says what is removed; leave out {given}")
        if self.base_epochs is not None and self.base_epochs < 1:
            raise Refusal(f"--base-epochs {self.base_epochs} must be at least 1")
        if self.cap is not None and not self.cap >= 1:
            raise Refusal(f"--cap {self.cap} must be at least 1")
        if self.num_classes is not None and self.num_classes < 1:
            raise Refusal(f"--num-classes {self.num_classes} must be at least 1")

    def published(self) -> Target | None:
        """The target, which must be of the architecture asked for, if one is."""
        if self.target is None:
            return None
        target = get_target(self.target)
        if self.arch not in (None, target.arch):
            raise Refusal(f"target {self.target!r} is made from {target.arch}, not from {self.arch}")
        return target


_SELECTION = ("ratio", "skip", "scope", "level", "round_to")


def job_from_words(words: Mapping[str, Any]) -> PruneJob:
    """The job that the words of a command line ask for; `words` has only those that were given."""
    given = {name: word for name, word in words.items() if name not in ("list", "debug")}
    if "out" not in given:
        raise Refusal("--out DIR is needed, the folder to write into")
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
        raise Refusal("--data-options and --data-images need --data")
    return PruneJob(**given, arch_options=arch_options, options=options, selection=selection)


def read_pairs(owner: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` words, values as in YAML; ValueError names the `owner` of a word that is none."""
    found: dict[str, Any] = {}
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
