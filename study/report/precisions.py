"""In which precision the trainings behind each row computed: part of what its numbers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_JOIN = " and "


def precision_of(results: Iterable[Mapping[str, Any]]) -> str:
    """The precisions of a row's trainings, each once: "float32", or "float32 and bfloat16"; empty if none trained."""
    names = (_name(result) for result in results)
    return _JOIN.join(dict.fromkeys(name for name in names if name))


def named_precision(comparison: Mapping[str, Any]) -> str:
    """The one precision of all rows, or all that there are; empty where none is recorded."""
    return precision_of(_results(comparison))


def precision_provenance(comparison: Mapping[str, Any]) -> list[str]:
    """How each precision came to be chosen: "bfloat16 (auto: measured, 1.85 times as fast as float32)"."""
    found = (result.get("precision") for result in _results(comparison))
    return list(dict.fromkeys(_in_words(precision) for precision in found if precision))


def precision_warnings(comparison: Mapping[str, Any]) -> list[str]:
    """Rows of different precisions, and trainings in another one than the study asks for."""
    messages = []
    rows: dict[str, dict[str, None]] = {}
    for row in comparison.get("rows") or ():
        if precision := row.get("precision"):
            rows.setdefault(precision, {})[row["pipeline"]] = None
    if len(rows) > 1 or any(_JOIN in precision for precision in rows):
        mixed = "; ".join(f"{precision}: {', '.join(routes)}" for precision, routes in rows.items())
        messages.append(f"The rows mix precisions, so that not the routes alone differ: {mixed}.")
    asked = ((comparison.get("config") or {}).get("machine") or {}).get("precision", "auto")
    names = [name for result in _results(comparison) if (name := _name(result))]
    others = [name for name in names if name != asked]
    if asked != "auto" and others:
        messages.append(
            f"machine.precision asks for {asked}, and {len(others)} of {len(names)} trainings were made in "
            f"{_JOIN.join(dict.fromkeys(others))} by an earlier run: remove their run directories to train them again."
        )
    return messages


def _results(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [stage.get("result") or {} for stage in (comparison.get("stages") or {}).values()]


def _name(result: Mapping[str, Any]) -> str:
    return (result.get("precision") or {}).get("name", "")


def _in_words(precision: Mapping[str, Any]) -> str:
    if precision.get("asked") != "auto":
        return f"{precision['name']} (as asked)"
    speedup = precision.get("bfloat16_speedup")
    measured = f"; bfloat16 measured {speedup:.2f} times as fast as float32" if speedup is not None else ""
    return f"{precision['name']} (auto, by {precision['by']}{measured})"
