"""Print the page about all methods, from their docstrings: `python -m pruning.methods > docs/methods.md`."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from pruning.methods import METHODS
from pruning.methods.method import Method

_NEEDS = {
    "nothing": "It looks at weights alone.",
    "activations": "It looks at what layers answer on calibration images.",
    "gradients": "It looks at the gradients of the loss on calibration images.",
}


def in_markdown() -> str:
    """A section for each method: its source, rule and departures, what it looks at, its options."""
    lines = [
        "# Methods",
        "",
        "Every pruning method by its name in a config (`prune.method`), from the docstrings of `pruning/methods/`:",
        "source, rule, departures from it, options (`prune.options`). `python -m pruning.methods > docs/methods.md`",
        "writes this page anew.",
    ]
    for name, method in METHODS.items():
        lines += ["", f"## `{name}`", "", *_about(name), "", *_facts(method), *_options(method)]
    return "\n".join(lines) + "\n"


def _about(name: str) -> list[str]:
    """The docstring of the method's module, which has its name."""
    return inspect.cleandoc(sys.modules[f"pruning.methods.{name}"].__doc__ or "").splitlines()


def _facts(method: Method[Any]) -> Iterator[str]:
    """What the entry in METHODS says of it, one sentence each."""
    yield f"* {_NEEDS[method.needs]}"
    if method.training_effect is not None:
        yield "* It acts on the training that comes before the pruning."
    if method.unstructured(method.options()):
        yield "* It removes single weights; the shape of the network stays."
    if not method.predefined:
        yield "* What is left depends on trained weights."


def _options(method: Method[Any]) -> list[str]:
    own = fields(method.options)
    if not own:
        return ["* It has no options."]
    defaults = (f"`{field.name}: {_default(field)}`" for field in own)
    return ["", f"Options, with their defaults: {', '.join(defaults)}.", "", *_about_options(method.options)]


def _about_options(options: type[Any]) -> list[str]:
    said = options.__dict__.get("__doc__") or ""
    return [] if said.startswith(f"{options.__name__}(") else inspect.cleandoc(said).splitlines()


def _default(field: Any) -> object:
    value = field.default if field.default is not MISSING else field.default_factory()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


if __name__ == "__main__":
    sys.stdout.write(in_markdown())
