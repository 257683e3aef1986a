"""Which iterations of detectors were kept, and how many were trained, where AP on the validation split decided it."""

from __future__ import annotations

from collections.abc import Iterator

from study.report.routes import route_label
from study.report.rows import Comparison, Row, StageResult

_SHOWN = 8  # routes; of the others their results say it


def kept_iterations(comparison: Comparison) -> list[str]:
    """One sentence about all trainings with `keep: best` or `patience`; none where there is no such training."""
    found: dict[str, list[str]] = {}
    for row in comparison.rows:
        for step, words in _of_row(row, comparison):
            found.setdefault(f"{route_label(row.pipeline, row.point)}, {step}", []).append(words)
    if not found:
        return []
    shown = [f"{place}: {', '.join(dict.fromkeys(words))}" for place, words in list(found.items())[:_SHOWN]]
    more = [f"{len(found) - _SHOWN} more are in the results"] if len(found) > _SHOWN else []
    return [
        f"Iterations kept, by AP on the validation split: {'; '.join([*shown, *more])}. "
        "Training MACs count all iterations that were trained, also those after the kept one."
    ]


def _of_row(row: Row, comparison: Comparison) -> Iterator[tuple[str, str]]:
    for step in row.chain:
        stage = comparison.stages[step.run]
        if _goes_by_validation(stage):
            kept, trained = stage.part("metrics")["kept_iteration"], stage.result["iterations"]
            planned = stage.result["planned_iterations"]
            yield step.step, f"{kept} of {trained}{f' ({planned} planned)' if trained < planned else ''}"


def _goes_by_validation(stage: StageResult) -> bool:
    train = stage.part("settings").get("train") or {}
    return "kept_iteration" in stage.part("metrics") and (train.get("keep") == "best" or bool(train.get("patience")))
