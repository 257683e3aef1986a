"""What is wrong with given values, in sentences of our own: the key, the value, and what it takes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from training.type_words import TypeForm, alternatives, did_you_mean, field_type, in_words, unwrapped

_SHOWN = 60  # characters of a value in a message
KeyPath = tuple[str | int, ...]  # the names and list positions that lead to a key


@dataclass(frozen=True)
class Misfit:
    """One thing that is wrong, and the key it is wrong with."""

    path: KeyPath
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.text}" if self.path else self.text


def misfits(error: ValidationError, section: type[BaseModel], data: object) -> list[Misfit]:
    """What is wrong with `data`, which is no `section`; one for each key, in the order of the keys."""
    found: dict[KeyPath, Misfit] = {}
    for details in error.errors():
        path, annotation, whole = _place(section, details["loc"])
        whole |= details["type"] == "value_error"
        if whole or path not in found:  # what is known of a key inside says more than what of a union fits less
            found[path] = _misfit(path, annotation, whole, details, section, data)
    deepest = [path for path in found if not any(other[: len(path)] == path != other for other in found)]
    return [found[path] for path in deepest]


def misfit(value: object, annotation: TypeForm) -> str:
    """That `value` is not of this type, and what is."""
    near = ""
    if isinstance(value, str):
        near = did_you_mean(value, [str(name) for part in alternatives(annotation) for name in _choices(part)])
    hint = "".join(_hints(value, annotation))
    return f"{shown(value)} does not fit; {near}expected: {in_words(annotation)}{hint}"


def shown(value: object) -> str:
    """A value as a config would have it, cut where it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(to_jsonable_python(value, fallback=str))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def sections_in(annotation: TypeForm) -> Iterator[type[BaseModel]]:
    """The sections that a type is made of: itself, the items of a tuple, what may be absent."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from sections_in(part)


def keys_of(section: type[BaseModel], prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key at and below a section, each section before its own keys; the items of a list have no name."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        for inner in sections_in(field.annotation):
            yield from keys_of(inner, (*prefix, name))


def _place(section: type[BaseModel], location: KeyPath) -> tuple[KeyPath, TypeForm, bool]:
    """The path to the key that an error is about, its type, and whether pydantic's path leads no further.

    In a union that path goes on with a name for one of its types, which is no key.
    """
    path: KeyPath = ()
    annotation: TypeForm = section
    if location[-1:] == ("[key]",):  # a key of a mapping that is no text: said of the mapping
        location = location[:-2]
    for number, part in enumerate(location):
        choices = [choice for choice in alternatives(annotation) if choice is not NoneType]
        if len(choices) > 1:
            sections = [choice for choice in choices if _names_section(str(part), choice)]
            if not sections or number == len(location) - 1:
                return path, annotation, False
            annotation = sections[0]
            continue
        inside = choices[0]
        path = (*path, part)
        known, annotation = _step(inside, part)
        if not known:
            return path, inside, True
    return path, annotation, True


def _names_section(part: str, annotation: TypeForm) -> bool:
    """Whether a part of pydantic's path stands for this section: its name, or one like "function-after[f(), Name]"."""
    name = part.removesuffix("]").split(" ")[-1]
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.__name__ == name


def _step(annotation: TypeForm, part: str | int) -> tuple[bool, TypeForm]:
    """Whether there is such a key or position in a type, and the type of what is there."""
    inner, _ = unwrapped(annotation)
    fields, arguments = getattr(inner, "model_fields", {}), get_args(inner)
    if part in fields:
        return True, field_type(fields[str(part)])
    if isinstance(part, int):
        return bool(arguments), arguments[0] if arguments else None
    return len(arguments) > 1, arguments[1] if len(arguments) > 1 else None


def _misfit(
    path: KeyPath, annotation: TypeForm, whole: bool, details: ErrorDetails, section: type[BaseModel], data: object
) -> Misfit:
    kind = details["type"] if whole else "union"
    if kind == "value_error":
        return _of_a_check(path, annotation, details["msg"].removeprefix("Value error, "))
    if kind in ("extra_forbidden", "invalid_key"):
        return Misfit(path, _unknown(path, annotation, section))
    if kind == "missing" and isinstance(path[-1], str):
        return Misfit(path, f"this key is required; expected: {in_words(annotation)}")
    if kind == "missing":  # a list that is too short
        path = path[:-1]
        annotation = _place(section, path)[1]
    value = _value_at(data, path)
    if kind == "finite_number":
        return Misfit(path, f"{shown(value)} is no finite number")
    return Misfit(path, misfit(value, annotation))


def _of_a_check(path: KeyPath, annotation: TypeForm, message: str) -> Misfit:
    """What a section's own check says; it may begin with a key of the section, as in "fine_tune.epochs: ..."."""
    key, colon, text = message.partition(": ")
    names = [name for inner in sections_in(annotation) for name in inner.model_fields]
    if colon and key.split(".")[0] in names:
        return Misfit((*path, *key.split(".")), text)
    return Misfit(path, message)


def _unknown(path: KeyPath, inside: TypeForm, section: type[BaseModel]) -> str:
    """The nearest known key: of the same section, or elsewhere one of exactly this name."""
    known = [name for inner in sections_in(inside) for name in inner.model_fields]
    near = get_close_matches(str(path[-1]), known, n=1)
    if not near:
        near = [".".join(map(str, key)) for key in keys_of(section) if key[-1] == path[-1]][:1]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key; {hint}known keys: {', '.join(known)}"


def _value_at(data: object, path: KeyPath) -> object:
    for part in path:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, Sequence) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = getattr(data, str(part), None)
    return data


def _choices(annotation: TypeForm) -> tuple[object, ...]:
    inner, _ = unwrapped(annotation)
    return get_args(inner) if get_origin(inner) is Literal else ()


def _hints(value: object, annotation: TypeForm) -> Iterator[str]:
    """What was probably meant: a percentage as a fraction, one item as a list of it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return
    if not isinstance(value, str) and 1 < value < 100 and in_words(annotation).startswith("fraction"):
        yield f"; {value} % is {value / 100:g}"
    elif in_words(annotation).startswith("list") and _fits([value], annotation):
        yield f", such as {shown([value])}"


def _fits(value: object, annotation: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True
