"""Sections of a config, and options of a pruning method, from what a user wrote: names checked, values typed."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pruning.errors import Refusal
from pruning.methods import MethodOptions, get_method
from pruning.select import Selection
from training.misfits import Misfit, misfit, misfits
from training.type_words import did_you_mean

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Unknown keys and numbers that are not finite are errors, values are not changed after validation.

    The text below a key is its meaning: one line, which `--keys` and docs/configuration.md show.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=Section)


def validated(section: type[SectionT], data: Mapping[str, object], name: str) -> SectionT:
    """A section from its data; ValueError in one sentence that begins with the key, below `name`."""
    try:
        return section.model_validate(data)
    except ValidationError as error:
        first = misfits(error, section, data)[0]
        raise Refusal(str(Misfit((name, *first.path), first.text))) from error


def changed(section: SectionT, changes: Mapping[str, object], name: str) -> SectionT:
    """`section` with some keys changed, validated again."""
    return validated(type(section), {**section.model_dump(exclude_unset=True), **changes}, name)


def file_options(method: str) -> list[str]:
    """The options of `method` that name files: these count by what is in them."""
    return [f.name for f in fields(get_method(method).options) if f.metadata.get("files")]


_SELECTION = {f.name for f in fields(Selection)}


def check_level(method: str, options: MethodOptions, level: str) -> None:
    """ValueError for a stated `level` that the method, which has its own, would not follow."""
    own = get_method(method).own_level(options)
    if own is not None and own != level:
        has = any(f.name == "level" for f in fields(options))
        instead = f"; its option `level` says otherwise (options.level={level})" if has else ""
        raise Refusal(f"level {level!r}: method {method!r} ranks at level {own!r}{instead}")


def read_method_options(method: str, given: Mapping[str, object]) -> MethodOptions:
    """The options of `method` with the values `given`; ValueError names the option, the value and what is known."""
    options = get_method(method).options
    known = [f.name for f in fields(options)]
    types = get_type_hints(options)
    values: dict[str, object] = {}
    for name, value in given.items():
        if name not in known and name in _SELECTION:
            raise Refusal(
                f"method {method!r} has no option {name!r}: `{name}` beside `method` says it (options.{name}={value!r})"
            )
        if name not in known:
            hint = did_you_mean(name, known)
            raise Refusal(f"method {method!r} has no option {name!r}; {hint}known: {', '.join(known) or 'none'}")
        adapter: TypeAdapter[object] = TypeAdapter(
            types[name], config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        )
        try:
            values[name] = adapter.validate_python(value)
        except ValidationError as error:
            raise Refusal(f"option {name!r} of method {method!r}: {misfit(value, types[name])}") from error
    return options(**values)
