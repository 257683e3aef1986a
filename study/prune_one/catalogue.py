"""What there is to prune, and by what: architectures, methods with their options, published targets."""

import dataclasses
import importlib
import re
import textwrap
from collections.abc import Iterable, Iterator

from classify.models import MODELS, list_models
from pruning.methods import METHODS
from pruning.targets import TARGETS

_COLUMNS = 120


def catalogue() -> str:
    """All names, as text for a terminal."""
    others = [name for name in list_models() if name not in MODELS]
    return "\n".join(
        [
            "architectures of this project:",
            _block(MODELS),
            "architectures of torchvision:",
            _block(others),
            "methods, with their options and defaults:",
            *_methods(),
            "targets, published pruned shapes:",
            *_targets(),
        ]
    )


def method_summary(name: str) -> str:
    """The first sentence of a method's module: what it is and where it comes from."""
    text = importlib.import_module(f"pruning.methods.{name}").__doc__ or ""
    return re.split(r"\.\s", " ".join(text.split()) + " ")[0]


def _methods() -> Iterator[str]:
    for name, method in METHODS.items():
        data = f" [needs --data: {method.needs}]" if method.needs != "nothing" else ""
        yield _entry(f"{name}: {method_summary(name)}{data}")
        shown = [f"{f.name}={_default(f)}" for f in dataclasses.fields(method.options)]
        if shown:
            yield textwrap.fill(
                f"options: {', '.join(shown)}", _COLUMNS, initial_indent=" " * 6, subsequent_indent=" " * 8
            )


def _targets() -> Iterator[str]:
    for name, target in TARGETS.items():
        cap = f", Scratch-B at most {target.cap:g} times that" if target.cap else ""
        size = f"{target.input_size}x{target.input_size}"
        yield f"  {name:<20} from {target.arch} at {size}, {target.base_epochs} base epochs{cap}"


def _default(option: dataclasses.Field[object]) -> object:
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default


def _block(names: Iterable[str]) -> str:
    return textwrap.fill(
        ", ".join(names), _COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def _entry(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, initial_indent="  ", subsequent_indent=" " * 6, break_on_hyphens=False)
