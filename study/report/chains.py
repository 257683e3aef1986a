"""Which run directories each route used, and what every stage measured."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from study.report import units
from study.report.routes import RouteResults
from study.report.rows import Numbers, StageResult, Step
from study.report.statistics.summary import is_number, summarize

_MAX_METRICS = 6


@dataclass(frozen=True)
class ChainStep:
    """One stage of a route over all seeds; `runs` are (seed, run directory, link relative to the report)."""

    step: str
    kind: str
    runs: tuple[tuple[int, str, str], ...]
    shared: bool
    train_macs: str
    seconds: str
    metrics: str


def chain_of(route: RouteResults, stages: Mapping[str, StageResult], runs: Path, out: Path) -> list[ChainStep]:
    """The stages of a route in order; costs are means over seeds."""
    by_step: dict[str, list[tuple[int, Step]]] = {}
    for row in route.rows:
        for step in row.chain:
            by_step.setdefault(step.step, []).append((row.seed, step))
    return [_chain_step(name, used, stages, runs, out) for name, used in by_step.items()]


def _chain_step(
    name: str, used: Sequence[tuple[int, Step]], stages: Mapping[str, StageResult], runs: Path, out: Path
) -> ChainStep:
    macs = summarize(step.train_macs for _, step in used)
    seconds = summarize(step.seconds for _, step in used)
    return ChainStep(
        name,
        used[0][1].kind,
        tuple((seed, step.run, quote(Path(os.path.relpath(runs / step.run, out)).as_posix())) for seed, step in used),
        any(step.shared for _, step in used),
        "unknown" if used[0][1].kind == "take_weights" else units.si(macs.mean if macs and macs.mean else None),
        units.seconds(seconds.mean if seconds else None),
        _metrics([stages[step.run].part("metrics") for _, step in used]),
    )


def _metrics(metrics: Sequence[Numbers]) -> str:
    """The stage's single numbers, mean over seeds: "val_accuracy 0.97, loss 0.12"."""
    names = [name for name, value in metrics[0].items() if is_number(value)][:_MAX_METRICS]
    means = [(name, summarize(m.get(name) for m in metrics)) for name in names]
    return ", ".join(f"{name} {summary.mean:.4g}" for name, summary in means if summary is not None)
