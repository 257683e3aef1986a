"""Whether pruning methods keep their order from the classifier to the detector: Kendall's tau of accuracy and AP.

Kendall, The treatment of ties in ranking problems, Biometrika 1945: tau-b, of each seed alone; then the mean over seeds
with Student's interval. Seeds are independent; a bootstrap of three of them has ten distinct samples, too few for one.
PruningBench (2024, withdrawn submission) found the orders to differ, in single runs.

No statement of the report's list says so: those are about the difference of two sides, and a tau below 1 shows
nothing, since the noise of training alone brings it about. How far seeds agree is the measure of that noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import attrgetter
from statistics import fmean

import plotly.graph_objects as go
from scipy.special import stdtrit
from scipy.stats import kendalltau

from study.report.artifacts import steps
from study.report.claims.pruned_by import PrunedBy, pruned_by
from study.report.claims.statement import UNSTRUCTURED
from study.report.material import Material
from study.report.plots import Exhibit, Value, base_figure, plain
from study.report.routes import AMOUNTS, RouteResults, describe_point
from study.report.statistics.summary import Summary, mean_of, summarize
from study.report.topic import DETECTION
from training.files import canonical

_FEWEST = 3  # methods that have an order
_BY_METHOD = ("variant", "prune.method", "prune.options")  # fields of the grid that tell methods apart
_MARKERS = ("", "-open", "-dot", "-open-dot")  # of a route's look, one for each of its sets of methods
_CAPTION = (
    "Every mark is a method: means over seeds, and one standard deviation, of the top-1 accuracy of the pruned"
    " classifier as it goes into the detector and of the detector's AP. An order is that of the methods of one route"
    " which were asked for the same share and trained alike. Kendall's tau-b of the two orders is 1 where they are the"
    " same and around 0 where they have nothing to do with each other. It is taken of each seed; the table has the mean"
    " over seeds with Student's 95 % interval (none where all seeds have the same tau), and the tau of the methods'"
    " means. Noise of single runs draws a tau towards 0: the last columns have that of the same score with two seeds,"
    " over all pairs of seeds, which would be 1 if a method's place did not depend on the seed."
)
_COLUMNS = (
    *("route", "at", "methods", "tau", "95 % from", "95 % to", "n", "tau of the means"),
    *("accuracy of two seeds", "AP of two seeds"),
)

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class _Scored:
    """A method in a route: the accuracy of its classifiers and the AP of its detectors, of the same seeds."""

    name: str
    accuracy: BySeed
    ap: BySeed


_SCORES: tuple[Callable[[_Scored], BySeed], ...] = (attrgetter("accuracy"), attrgetter("ap"))


@dataclass(frozen=True)
class _Set:
    """Methods that have an order: of one route, asked for the same share, trained alike."""

    route: str
    place: str
    methods: list[_Scored]


def analyse(material: Material) -> Exhibit | None:
    """Accuracy against AP, a mark a method, and tau of each set of methods; None where no set has three."""
    sets = [each for each in _sets(material) if len(each.methods) >= _FEWEST]
    if material.topic is not DETECTION or not sets:
        return None
    figure = base_figure("top-1 of the classifier (%)", material.topic.primary.name, height=460)
    drawn: dict[str, int] = {}
    for each in sets:
        k = drawn[each.route] = drawn.get(each.route, -1) + 1
        _draw(figure, each, material, _MARKERS[k % len(_MARKERS)])
    title = "The order of methods on the classifier and on the detector"
    return Exhibit(title, _CAPTION, figure, (), _COLUMNS, tuple(_row(each) for each in sets))


def _sets(material: Material) -> list[_Set]:
    """All sets, in the order of their first routes."""
    pruned = pruned_by(material.routes, material.stages, material.files.root)
    found: dict[str, _Set] = {}
    for route in material.routes:
        by, accuracy = pruned[route.label], _accuracy(route, material)
        ap = {seed: v for seed, v in route.by_seed("AP").items() if v is not None and seed in accuracy}
        if not ap:
            continue
        rest = {key: value for key, value in route.point.items() if not key.startswith(_BY_METHOD)}
        amounts = {key: by.facts[key] for key in AMOUNTS if by.facts.get(key) is not None}
        unit = "single weights" if by.kind == UNSTRUCTURED else "channels"
        place = f"{unit}, {describe_point({**rest, **amounts})}"
        alike = canonical([route.name, place, by.target, _training(route, by, material)])
        name = route.point.get("variant", route.point.get("prune.method", by.method))
        method = _Scored(str(name), {seed: accuracy[seed] for seed in ap}, ap)
        found.setdefault(alike, _Set(route.name, place, [])).methods.append(method)
    return list(found.values())


def _accuracy(route: RouteResults, material: Material) -> BySeed:
    """Seed -> top-1 of the pruned classifier whose weights the detector starts from, where there is one."""
    found: dict[int, float] = {}
    for row in route.rows:
        kinds = [step.kind for step in row.chain]
        end = kinds.index("train_detector") if "train_detector" in kinds else 0
        if "prune" not in kinds[:end] or _part(material, row.chain[end].run).get("init") == "random":
            continue
        before = [step.run for step in row.chain[:end] if step.kind in ("train_classifier", "prune")]
        metrics = material.stages[before[-1]].part("metrics")
        # of a pruning that nothing follows, with BatchNorm's statistics anew, as the detector has them
        score = metrics.get("recalibrated_top1", metrics.get("test_top1"))
        if score is not None:
            found[row.seed] = float(score)
    return found


def _training(route: RouteResults, by: PrunedBy, material: Material) -> object:
    """What was set of the trainings, of the classifier's and the last of the detector's."""
    # the last one, of whichever seed: all have the same settings
    detector = [step.run for _, step in steps(route, "train_detector")][-1]
    classifier = {key: value for key, value in by.facts.items() if key.startswith("classifier.")}
    return classifier, _part(material, detector).get("train")


def _part(material: Material, run: str) -> Mapping[str, object]:
    return material.stages[run].part("settings")


def _draw(figure: go.Figure, each: _Set, material: Material, marker: str) -> None:
    look = material.looks[each.route]
    accuracy, ap = ([summarize(of(m).values()) for m in each.methods] for of in _SCORES)
    bars = {"thickness": 1, "width": 0, "color": look.colour}
    figure.add_scatter(
        x=[s.mean for s in accuracy if s is not None],
        y=[s.mean for s in ap if s is not None],
        error_x={**bars, "array": [s.std or 0.0 for s in accuracy if s is not None]},
        error_y={**bars, "array": [s.std or 0.0 for s in ap if s is not None]},
        mode="markers+text",
        text=[plain(method.name) for method in each.methods],
        textposition="top center",
        textfont={"size": 10},
        meta=plain(each.route),
        marker={"color": look.colour, "symbol": f"{look.marker}{marker}", "size": 9},
        name=plain(f"{each.route}, {each.place}"),
    )


def _row(each: _Set) -> tuple[Value, ...]:
    seeds = sorted({seed for method in each.methods for seed in method.ap})
    accuracy, ap = ([of(method) for method in each.methods] for of in _SCORES)
    by_seed = summarize(_tau([a.get(seed) for a in accuracy], [b.get(seed) for b in ap]) for seed in seeds)
    means = _tau([fmean(a.values()) for a in accuracy], [fmean(b.values()) for b in ap])
    between = (_between_seeds(table, seeds) for table in (accuracy, ap))
    found = (by_seed.mean, *_interval(by_seed), by_seed.n) if by_seed else (None, None, None, 0)
    return (each.route, each.place, len(each.methods), *found, means, *between)


def _between_seeds(table: Sequence[BySeed], seeds: Sequence[int]) -> float | None:
    """Mean tau of the orders by one score with two seeds, over all pairs of seeds."""
    orders = [[scores.get(seed) for scores in table] for seed in seeds]
    return mean_of(_tau(first, second) for first, second in combinations(orders, 2))


def _tau(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Kendall's tau-b of the methods that have both scores; None of fewer than three, or where all of one are equal."""
    both = [pair for pair in zip(first, second, strict=True) if None not in pair]
    if len(both) < _FEWEST:
        return None
    tau = float(kendalltau(*zip(*both, strict=True), variant="b").statistic)
    return None if math.isnan(tau) else tau


def _interval(taus: Summary) -> tuple[float | None, float | None]:
    """Student's 95 % interval of the mean, cut to where a tau can be."""
    if not taus.std:
        return None, None
    half = float(stdtrit(taus.n - 1, 0.975)) * taus.std / math.sqrt(taus.n)
    return max(-1.0, taus.mean - half), min(1.0, taus.mean + half)
