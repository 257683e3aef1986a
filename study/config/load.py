"""YAML files into the typed schema: inheritance, overrides, and errors in one sentence."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from study.config.shipped import find_config
from training.misfits import Misfit, misfits
from training.strict_yaml import ConfigError, parse_yaml, parse_yaml_file

Schema = TypeVar("Schema", bound=BaseModel)
_OVERRIDE = "override "  # how what is said of one begins
_FLAGS = {"--jobs": "machine.jobs", "--executor": "machine.executor"}  # overrides that are written as flags


@dataclass(frozen=True)
class Change:
    """What a command line says of a key; `text`: the words that say it."""

    text: str
    key: str
    value: object


def load_config(
    schema: type[Schema], path: Path | None, overrides: Sequence[str] = (), short: Sequence[Change] = ()
) -> Schema:
    """Read `path`, inherit from its `_base_`, apply `key.path=value` overrides, validate.

    An override may be a flag that stands for a key, `--jobs=4`. `path` None: there is no file. `short`: what short
    forms such as `--ratio 0.5` say, applied before the overrides.
    Raises ConfigError with one line per problem, which names the words that it comes from, or else the file.
    """
    data = {} if path is None else read_yaml(path)
    # the last one wins: what is written out in full goes over short forms
    changes = [*short, *(_read_override(override) for override in overrides)]
    whole = _with(data, changes)
    try:
        return schema.model_validate(whole)
    except ValidationError as error:
        found = misfits(error, schema, whole)
        lines = [f"{_blamed(problem, schema, path, data, changes)}: {problem}" for problem in found]
        raise ConfigError("\n".join(lines)) from error


def validate(schema: type[Schema], data: Mapping[str, object], *, source: str) -> Schema:
    """The typed config; ConfigError names `source`, the key path, the value and the choices."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in misfits(error, schema, data))) from error


def source_of(path: Path, overrides: Sequence[str], *keys: str) -> str:
    """Where the first of these keys that an override sets comes from: that override, or else the file."""
    for key in keys:
        # the last one wins; one of a section touches the keys in it, one of a key the section around it
        for override in reversed(overrides):
            place = _key_of(override).split(".")
            if _leads_to(place, key.split(".")) or _leads_to(key.split("."), place):
                return in_words(override)
    return str(path)


def in_words(override: str) -> str:
    """What a sentence calls an override: by its text, and a flag as it was written."""
    return override if override.partition("=")[0] in _FLAGS else f"{_OVERRIDE}{override!r}"


def read_yaml(path: Path, _inheriting: tuple[Path, ...] = ()) -> dict[str, object]:
    """The mapping in a YAML file, merged over the files that its `_base_` names, in their order.

    Each is a path, that of a base seen from the file which names it, or the name of a config that is shipped. A file
    with a name of its own does not inherit a title.
    """
    path = find_config(path).resolve()
    if path in _inheriting:
        raise ConfigError(f"{path}: `_base_` leads back to itself")
    data = parse_yaml_file(path)
    if not isinstance(data, dict):
        found = "empty" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(f"{path}: a config is a mapping of keys to values, and this is {found}")
    base = data.pop("_base_", None)
    if base is None:
        return data
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise ConfigError(
            f"{path}: `_base_` is the path of a YAML file, a shipped one's name, or a list of these, not {base!r}"
        )
    merged: dict[str, object] = {}
    for name in bases:
        merged = merge(merged, read_yaml(find_config(name, path.parent), (*_inheriting, path)))
    if "name" in data:  # another study: what its base is about may not be what it is about
        merged.pop("title", None)
    return merge(merged, data)


def parse_value(text: str, *, source: str) -> object:
    """The value behind `key=` on a command line, as `parse_yaml`."""
    return parse_yaml(text, source=source, subject="the value is ")


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """`over` on top of `base`: mappings merge key by key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def set_key(data: dict[str, object], key: str, value: object) -> None:
    """Set `a.b.c` in nested mappings, making those that are not there."""
    *parents, last = key.split(".")
    for name in parents:
        inside = data.get(name)
        if not isinstance(inside, dict):
            data[name] = inside = {}
        data = inside
    data[last] = value


def _read_override(override: str) -> Change:
    key, (_, equals, text) = _key_of(override), override.partition("=")
    words = in_words(override)
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{words} is not of the form key.path=value")
    return Change(words, key, parse_value(text, source=words))


def _key_of(override: str) -> str:
    key = override.partition("=")[0]
    return _FLAGS.get(key, key)


def _with(data: Mapping[str, object], changes: Sequence[Change]) -> dict[str, object]:
    changed = deepcopy(dict(data))
    for change in changes:
        # a value may be a mapping that a later change reaches into, and is laid over other data to find who is to blame
        set_key(changed, change.key, deepcopy(change.value))
    return changed


def _blamed(
    problem: Misfit, schema: type[BaseModel], path: Path | None, data: Mapping[str, object], changes: Sequence[Change]
) -> str:
    """Where a problem comes from: the file if it has it alone, else the override that brings it to the file.

    What only several overrides together bring is said of all of them that touch its key.
    """
    place = [str(part) for part in problem.path]
    within = [change for change in changes if _leads_to(change.key.split("."), place)]
    if within:  # the value itself was given so
        return within[-1].text
    if problem in _problems(schema, data):
        return str(path)
    for change in reversed(changes):
        if problem in _problems(schema, _with(data, [change])):
            return change.text
    touching = [change.text for change in changes if _leads_to(place, change.key.split("."))]
    if touching and all(text.startswith(_OVERRIDE) for text in touching):
        return f"overrides {', '.join(text.removeprefix(_OVERRIDE) for text in touching)}"
    return ", ".join(touching) or str(path)


def _problems(schema: type[BaseModel], data: Mapping[str, object]) -> list[Misfit]:
    try:
        schema.model_validate(data)
    except ValidationError as error:
        return misfits(error, schema, data)
    return []


def _leads_to(start: Sequence[str], place: Sequence[str]) -> bool:
    return list(place[: len(start)]) == list(start)
