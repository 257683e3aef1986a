"""Every key of a config with its type, default and meaning, as the schema says them.

`python -m study.config.keys > docs/configuration.md` writes the page; commands print theirs with `--keys`.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill

from pydantic import BaseModel

from pruning.errors import Refusal
from study.config.schema import COMMANDS, SCHEMAS
from training.misfits import sections_in, shown
from training.options import Section
from training.type_words import field_type, in_words

WIDTH = 120
_REQUIRED, _BELOW = "required", "see its keys"  # in the place of a default


@dataclass(frozen=True)
class Key:
    """One key of a config, or a section of keys; the items of a list of sections are at `path[]`."""

    path: str
    type: str
    default: str
    meaning: str
    is_section: bool


def all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys of a section and of those in it, each section before its own keys."""
    for name, field in section.model_fields.items():
        annotation, path = field_type(field), f"{prefix}{name}"
        inner = list(sections_in(annotation))
        default = _REQUIRED if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield Key(path, in_words(annotation), default, field.description or "", bool(inner))
        item = "[]" if in_words(annotation).startswith("list") else ""
        for part in inner:
            yield from all_keys(part, f"{path}{item}.")


def keys_at(schema: str, part: str = "") -> list[Key]:
    """The keys of a schema at and below `part`; ValueError with the nearest one for a part that there is not."""
    keys = list(all_keys(SCHEMAS[schema]))
    found = [key for key in keys if not part or key.path == part or key.path.startswith((f"{part}.", f"{part}["))]
    if not found:
        near = get_close_matches(part, [key.path for key in keys], n=1)
        # spelt like no key, but its last word is one: the key is right and its section wrong
        near = near or [key.path for key in keys if key.path.split(".")[-1] == part.split(".")[-1]]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Refusal(f"--keys: there is no key {part!r}{hint}")
    return found


def in_lines(keys: Iterable[Key]) -> str:
    """Two lines a key: what it takes and its default, then its meaning."""
    return "\n".join(f"{_takes(key)}\n    {key.meaning}" for key in keys)


def in_markdown() -> str:
    """The page about all configs: the study's keys, then those that the others have of their own."""
    lines = [
        "# Configuration",
        "",
        "Every key of a config: what it takes, its default, its meaning. `prune-transfer run --keys` prints",
        "the same, `--keys detector.model` a part. The schema in the code is the source of this page:",
        "`python -m study.config.keys > docs/configuration.md` writes it anew.",
    ]
    known: set[Key] = set()
    for schema, section in SCHEMAS.items():
        keys = [key for key in all_keys(section) if key not in known]
        known.update(keys)
        lines += ["", f"## A {schema}: `prune-transfer {COMMANDS[schema]}`", ""]
        if schema != "study":
            lines += ["Keys that it shares with a study are not repeated here.", ""]
        lines += ["| key | takes | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(key) for key in keys]
    return "\n".join(lines) + "\n"


def _takes(key: Key) -> str:
    default = key.default if key.default == _REQUIRED else f"default {key.default}"
    return fill(
        f"{key.path}: {key.type}; {default}",
        WIDTH,
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _row(key: Key) -> str:
    default = key.default if key.default in (_REQUIRED, _BELOW) else f"`{key.default}`"
    path = f"**`{key.path}`**" if key.is_section else f"`{key.path}`"
    return " | ".join(["", path, key.type, default, key.meaning, ""]).strip()


def _default(value: object) -> str:
    """A default as a config would have it."""
    if isinstance(value, Section):
        return _BELOW
    return str(value) if value and isinstance(value, str | Path) else shown(value)


if __name__ == "__main__":
    sys.stdout.write(in_markdown())
