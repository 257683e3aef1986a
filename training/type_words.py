"""What a type allows, in words: `Annotated[int, Field(ge=1)] | None` is "whole number (at least 1), or null"."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from pruning.errors import Refusal

TypeForm: TypeAlias = object
"""What may stand behind a field's colon: a class, a union, a `Literal`, an `Annotated`; `get_origin` tells which."""

_NOUNS: dict[TypeForm, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    Any: "value",
    object: "value",
    NoneType: "null",
}
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


@dataclass(frozen=True)
class InWords:
    """Annotation of a type that is clearer in words of its own."""

    text: str


@dataclass(frozen=True, eq=False)  # as a part of types it needs a hash, which a table has not
class OneOf:
    """Annotation of a text that must be a name in a table; ValueError lists its names."""

    choices: Collection[str]
    what: str

    def __get_pydantic_core_schema__(self, source: type[str], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda name: known(name, self.choices, self.what), handler(source)
        )


def known(value: str, choices: Collection[str], what: str) -> str:
    """`value`; ValueError if it is none of the `choices`."""
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise Refusal(f"unknown {what} {value!r}; {hint}choose from {', '.join(choices) or 'none'}")
    return value


def did_you_mean(value: str, names: Collection[str]) -> str:
    """The question whether the nearest of the names was meant, or one that begins so; empty where there is none."""
    known, given = {name.lower(): name for name in names}, value.lower()
    near = get_close_matches(given, known, n=1) or [name for name in known if given and name.startswith(given)]
    return f"did you mean {known[near[0]]!r}? " if near else ""


def field_type(field: FieldInfo) -> TypeForm:
    """The whole type of a field, its bounds included, which pydantic keeps beside it."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def in_words(annotation: TypeForm, *, many: bool = False) -> str:
    """What may be given for this type; `many`: in the plural, as the items of a list."""
    annotation, metadata = unwrapped(annotation)
    for mark in metadata:
        if isinstance(mark, InWords):
            return mark.text
        if isinstance(mark, OneOf):
            return _one_of(mark.choices, many)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _union(parts, many)
    if origin is Literal:
        return _one_of(parts, many)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _plural("mapping", many) + " of names to " + in_words(parts[1], many=True)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _list(parts, dict(_limits(metadata)), many)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _plural("section", many)
    return _scalar(annotation, dict(_limits(metadata)), many)


def unwrapped(annotation: TypeForm) -> tuple[TypeForm, tuple[object, ...]]:
    """A type without its `Annotated`, and what that says of it."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def alternatives(annotation: TypeForm) -> list[TypeForm]:
    """The types that a union is made of; of any other type itself."""
    inner, _ = unwrapped(annotation)
    return list(get_args(inner)) if get_origin(inner) in (Union, UnionType) else [annotation]


def _union(parts: Iterable[TypeForm], many: bool) -> str:
    words = list(dict.fromkeys(in_words(part, many=many) for part in parts))
    simple = len(words) == 2 and not any("," in word or " or " in word for word in words)
    return " or ".join(words) if simple else ", or ".join(words)


def _one_of(choices: Iterable[object], many: bool) -> str:
    names = [str(choice) for choice in choices]
    if len(names) == 1:
        return repr(names[0])
    return ("any of " if many else "one of ") + ", ".join(names)


def _list(parts: tuple[TypeForm, ...], limits: Mapping[str, float], many: bool) -> str:
    items = in_words(parts[0], many=True)
    if len(parts) > 1 and parts[-1] is not Ellipsis:  # of fixed length, its items alike
        return f"{_plural('list', many)} of {len(parts)} {items}"
    fewest = f" (at least {limits['min_length']} item)" if "min_length" in limits else ""
    return f"{_plural('list', many)}{fewest} of {items}"


def _scalar(annotation: TypeForm, limits: Mapping[str, float], many: bool) -> str:
    noun = _NOUNS.get(annotation) or str(getattr(annotation, "__name__", "value"))
    above, below = limits.get("ge", limits.get("gt", -1)), limits.get("le", limits.get("lt", 2))
    if annotation is float and above >= 0 and below <= 1:
        noun = "fraction"
    bounds = [f"{words} {limits[name]}" for name, words in _BOUNDS.items() if name in limits]
    if not bounds:
        return _plural(noun, many)
    return f"{_plural(noun, many)} ({'each ' if many else ''}{' and '.join(bounds)})"


def _limits(metadata: Iterable[object]) -> Iterator[tuple[str, float]]:
    """The bounds in what `Annotated` says, such as ("ge", 0)."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _limits(mark.metadata)
        for name in (*_BOUNDS, "min_length"):
            if getattr(mark, name, None) is not None:
                yield name, getattr(mark, name)


def _plural(noun: str, many: bool) -> str:
    return noun + "s" if many and noun not in (_NOUNS[bool], _NOUNS[NoneType]) else noun
