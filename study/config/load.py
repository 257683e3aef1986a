"""YAML files into the typed schema: inheritance, overrides, and errors in one sentence."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from training.strict_yaml import ConfigError, parse_yaml, parse_yaml_file

Schema = TypeVar("Schema", bound=BaseModel)


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read `path`, inherit from its `_base_`, apply `key.path=value` overrides, validate.

    Raises ConfigError with one line per problem.
    """
    data = read_yaml(path)
    for override in overrides:
        _apply_override(data, override)
    return validate(schema, data, source=str(path))


def validate(schema: type[Schema], data: Mapping[str, Any], *, source: str) -> Schema:
    """The typed config; ConfigError names `source`, the key path, the value and the choices."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        errors = _without_alternatives([dict(e) for e in error.errors()], data)
        raise ConfigError("\n".join(_sentence(source, e, schema) for e in errors)) from error


def read_yaml(path: Path, _inheriting: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, merged over the files that its `_base_` names, in their order."""
    path = path.resolve() if path.exists() else path
    if path in _inheriting:
        raise ConfigError(f"{path}: `_base_` leads back to itself")
    data = parse_yaml_file(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, this is {type(data).__name__}")
    base = data.pop("_base_", None)
    if base is None:
        return data
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise ConfigError(f"{path}: `_base_` is the path of a YAML file or a list of them, not {base!r}")
    merged: dict[str, Any] = {}
    for name in bases:
        merged = merge(merged, read_yaml(path.parent / name, (*_inheriting, path)))
    return merge(merged, data)


def parse_value(text: str, *, source: str) -> Any:
    """The value behind `key=` on a command line, as `parse_yaml`."""
    return parse_yaml(text, source=source, subject="the value is ")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`: mappings merge key by key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.c` in nested mappings, making those that are not there."""
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(data.get(name), dict):
            data[name] = {}
        data = data[name]
    data[last] = value


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form key.path=value")
    set_key(data, key, parse_value(text, source=f"override {override!r}"))


def _without_alternatives(errors: list[dict[str, Any]], data: Any) -> list[dict[str, Any]]:
    """Of a value that may have several forms the errors of the form that fits furthest, or those of all in one.

    Pydantic gives an error a form, and puts the form's type between the keys, which nobody wrote into a file.
    """
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for error in errors:
        written, value = _written(error, data)
        found.setdefault(value or written, []).append({**error, "loc": written})
    left = []
    for same in found.values():
        depth = max(len(error["loc"]) for error in same)
        for place in dict.fromkeys(error["loc"] for error in same if len(error["loc"]) == depth):
            there = [error for error in same if error["loc"] == place]
            messages = list(dict.fromkeys(error["msg"].removeprefix("Value error, ") for error in there))
            left.append(there[0] if len(messages) == 1 else {**there[0], "msg": ", or ".join(messages)})
    return left


def _written(error: Mapping[str, Any], data: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The keys of an error's place, and those of the value of several forms that it is in: none if there is none."""
    keys: list[Any] = []
    several: tuple[Any, ...] = ()
    for place, part in enumerate(error["loc"]):
        absent = error["type"] == "missing" and place == len(error["loc"]) - 1
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(part, str) and not absent:
            several = several or tuple(keys)
            continue
        elif isinstance(part, int) and isinstance(data, Sequence) and part < len(data):
            data = data[part]
        keys.append(part)
    return tuple(keys), several


def _sentence(source: str, error: dict[str, Any], schema: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        known = _known_keys(schema, error["loc"][:-1])
        near = get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{source}: {key}: unknown key; {hint}known keys: {', '.join(known)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{source}: {key}: this key is required"
    value = error.get("input")
    shown = "" if isinstance(value, dict) or error["type"] == "value_error" else f" (got {value!r})"
    return f"{source}: {key}: {message}{shown}"


def _known_keys(schema: type[BaseModel], location: Sequence[Any]) -> list[str]:
    model: Any = schema
    for part in location:
        if isinstance(part, int):  # an item of a list, whose items the field before has named
            continue
        field = getattr(model, "model_fields", {}).get(part)
        models = [] if field is None else list(_models_in(field.annotation))
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type is made of: itself, the items of a tuple, what may be absent."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)
