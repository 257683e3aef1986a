"""Options of a pruning method from what a user wrote: names checked, values typed."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pruning.methods import get_method


def read_method_options(method: str, given: Mapping[str, Any]) -> Any:
    """The options of `method` with the values `given`; ValueError names the option, the value and what is known."""
    options: Any = get_method(method).options
    known = [f.name for f in fields(options)]
    types = get_type_hints(options)
    values = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"method {method!r} has no option {name!r}; known: {', '.join(known) or 'none'}")
        adapter: TypeAdapter[Any] = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            values[name] = adapter.validate_python(value)
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise ValueError(f"option {name!r} of method {method!r}: {what} (got {value!r})") from error
    return options(**values)
