"""What prunings could not remove, and why, in words; the results hold it in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN_REASONS, _SHOWN_LAYERS = 3, 3


def reach_notes(comparison: Mapping[str, Any]) -> list[str]:
    """A sentence for each way in which a pruning left channels of its scope whole, whatever the seed, each once."""
    found: dict[str, None] = {}
    for stage in (comparison.get("stages") or {}).values():
        result = stage.get("result") or {}
        achieved = result.get("achieved") or {}
        if achieved.get("beyond"):
            settings = result.get("settings") or {}
            found[_sentence(settings.get("method") or settings.get("target") or "pruning", achieved)] = None
    return list(found)


def _sentence(method: str, achieved: Mapping[str, Any]) -> str:
    unit, asked, beyond = achieved["unit"], achieved["asked"], achieved["beyond"]
    of_asked = f" of {asked:,} asked" if asked is not None else ""
    reasons = [_reason(item, unit) for item in beyond[:_SHOWN_REASONS]]
    if len(beyond) > _SHOWN_REASONS:
        reasons.append(f"{len(beyond) - _SHOWN_REASONS} more reasons are in the result")
    return f"{method} removed {achieved['removed']:,}{of_asked} {unit}; out of its reach: {'; '.join(reasons)}."


def _reason(item: Mapping[str, Any], unit: str) -> str:
    layers = item["layers"]
    shown = ", ".join(layers[:_SHOWN_LAYERS]) + (", ..." if len(layers) > _SHOWN_LAYERS else "")
    return (
        f"{item['channels']:,} {unit} of {len(layers)} layer{'' if len(layers) == 1 else 's'} ({shown}): {item['why']}"
    )
