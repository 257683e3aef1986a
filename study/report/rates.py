"""The rates of a study's routes: read from what was tried, as a table, and what to be careful about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.plan.pipelines import all_stages
from study.plan.tune import Decision, words
from study.report import units
from study.report.routes import describe_point, route_label
from study.report.topic import Topic
from study.report.tuned import Tried, Tuned


def tuned_from(decision: Decision, runs: Path) -> Tuned:
    """What the results on disk say of a route's rates."""
    tuning, chosen = decision.tuning, decision.chosen
    found = zip(tuning.candidates, decision.scores, decision.diverged, strict=True)
    tried = (Tried(c.values, scores, diverged, c is decision.recipe, c is chosen) for c, scores, diverged in found)
    cost = 0
    for stage in all_stages(tuning.routes):
        with suppress(OSError, ValueError):  # not there, or damaged
            cost += stage.run(runs).read_result()["train_macs"]
    seeds = tuple(route.seed for route in decision.recipe.routes)
    return Tuned(tuning.pipeline, dict(tuning.point), seeds, tuple(tried), cost)


@dataclass(frozen=True)
class RatesTable:
    """Columns and rows of text, and what they mean."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


_CAPTION = (
    "Each combination of the values in `tune` and the config's own that makes a difference to a route was trained on "
    "{seeds} and scored on the validation split, never on the test split. The highest mean is chosen; of equal ones "
    "the config's own values, then the smaller. Rows with rates = tuned have the chosen values; where the recipe is "
    "chosen they are the same runs as those with rates = recipe, and where it is chosen for every route there is one "
    "row for both. Training MACs: what choosing took for this route alone, shared stages in full and trainings that "
    "diverged left out; they are no part of the comparison above."
)


def rates_table(tuning: Sequence[Tuned], topic: Topic) -> RatesTable | None:
    """A row for each candidate of each route; None for a study that tried none."""
    if not tuning:
        return None
    seeds, measure = tuning[0].seeds, topic.primary.name
    columns = (
        "route",
        "at",
        "rates",
        *(f"{measure}, seed {seed}" for seed in seeds),
        "mean",
        "choice",
        "training MACs",
    )
    rows = [
        (
            route.pipeline if first else "",
            describe_point(route.point) if first else "",
            words(tried.values) or "nothing in `tune` makes a difference",
            *("diverged" if tried.diverged else units.score(score, topic.decimals) for score in tried.scores),
            units.score(tried.mean, topic.decimals),
            ", ".join(word for word, is_so in (("recipe", tried.recipe), ("chosen", tried.chosen)) if is_so),
            units.si(route.train_macs) if first else "",
        )
        for route in tuning
        for first, tried in ((tried is route.tried[0], tried) for tried in route.tried)
    ]
    if not any(route.point for route in tuning):
        columns, rows = _without_second(columns), [_without_second(row) for row in rows]
    said = f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
    return RatesTable(columns, tuple(rows), _CAPTION.format(seeds=said))


def rates_warnings(tuning: Sequence[Tuned]) -> list[str]:
    """A sentence for each chosen value at the edge of its grid: what lies beyond was not tried."""
    found: dict[tuple[str, float, str], list[str]] = {}
    for route in tuning:
        for edge in route.edges:
            found.setdefault(edge, []).append(route_label(route.pipeline, route.point))
    return [
        f"Rates at the edge: {key} = {value:g} is the {side} value tried and the best for {', '.join(routes)}; "
        "a better one may lie beyond it."
        for (key, value, side), routes in found.items()
    ]


def _without_second(row: tuple[str, ...]) -> tuple[str, ...]:
    return (row[0], *row[2:])
