"""Rates chosen for each route: what is tried on the validation split, what won, and the routes that follow from it.

A study runs in two phases. In the first, every combination of the values in `tune` that makes a difference to a route
is trained on seeds of its own and scored on the validation split; the best mean wins, of equal ones the config's own
values, then the smaller. In the second, routes run on the study's seeds as the config has them and at their best.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter
from pathlib import Path

from study.config.schema import StudyConfig
from study.config.tune import own_rate
from study.plan.latency import read_timing
from study.plan.pipelines import RATES, Route, all_stages, at_point, chains, describe, labels, make_route, points
from study.plan.retraining import kept_by
from study.plan.steps import StageBuilder
from study.stages.contents import Contents
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.files import canonical, read_json

RECIPE, TUNED = "recipe", "tuned"  # the values of the field RATES
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Candidate:
    """Values of the keys that make a difference to a route, and the route with them, one a tuning seed.

    `config`: the study's at the route's point, with these values.
    """

    values: Values
    config: StudyConfig
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Tuning:
    """What is tried for one route; the first candidate is the recipe, the route as the config has it."""

    pipeline: str
    point: Mapping[str, object]
    candidates: tuple[Candidate, ...]

    @property
    def routes(self) -> list[Route]:
        """The routes to run, none where no value makes a difference."""
        return [route for c in self.candidates for route in c.routes] if len(self.candidates) > 1 else []

    def decide(self, runs: Path) -> "Decision":
        """What the results on disk say."""
        scores = (tuple(_score(route.evaluation, runs) for route in c.routes) for c in self.candidates)
        return Decision(self, tuple(scores), tuple(_divergence(c.routes, runs) for c in self.candidates))


@dataclass(frozen=True)
class Decision:
    """What came of a route's candidates, in their order.

    `scores`: percent of the primary measure on the validation split by tuning seed, None where it is not there.
    `diverged`: the sentence of a training whose loss is no longer finite, which ends a candidate; else empty.
    """

    tuning: Tuning
    scores: tuple[tuple[float | None, ...], ...]
    diverged: tuple[str, ...]

    @property
    def recipe(self) -> Candidate:
        return self.tuning.candidates[0]

    @property
    def open(self) -> list[Candidate]:
        """The candidates that have neither all their scores nor diverged."""
        if not self.tuning.routes:
            return []
        found = zip(self.tuning.candidates, self.scores, self.diverged, strict=True)
        return [candidate for candidate, scores, diverged in found if None in scores and not diverged]

    @property
    def chosen(self) -> Candidate | None:
        """The best candidate; None as long as one is open, or where all diverged."""
        if not self.tuning.routes:
            return self.recipe
        found = zip(self.tuning.candidates, self.scores, self.diverged, strict=True)
        ranked = [(self._rank(c, scores), c) for c, scores, diverged in found if None not in scores and not diverged]
        return None if self.open or not ranked else min(ranked, key=itemgetter(0))[1]

    def _rank(self, candidate: Candidate, scores: Sequence[float | None]) -> tuple[object, ...]:
        mean = sum(score for score in scores if score is not None) / len(scores)
        # min() takes the highest mean; of equal ones, key by key, the own value (False < True), then the smaller
        return -mean, [(value != self.recipe.values[key], value) for key, value in candidate.values.items()]


@dataclass(frozen=True)
class StudyPlan:
    """A study's routes as its config has them, and what is tried to find better rates for each."""

    recipe: Sequence[Route]
    tunings: Sequence[Tuning]
    contents: Contents

    @property
    def tried(self) -> list[Route]:
        """The routes of the first phase."""
        return [route for tuning in self.tunings for route in tuning.routes]

    def decide(self, runs: Path) -> list[Decision]:
        """What the results on disk say of each route."""
        return [tuning.decide(runs) for tuning in self.tunings]

    def routes(self, decisions: Sequence[Decision]) -> list[Route]:
        """The routes of the study's seeds, as far as rates are chosen: all at the recipe, then all at their best.

        The field RATES of their points tells the two apart, so that either is a whole comparison; where the recipe is
        best they end in the same stages. Where it is best for every route there is no such field.
        """
        if all(decision.chosen is decision.recipe for decision in decisions):
            return list(self.recipe)
        found = [replace(route, point={**route.point, RATES: RECIPE}) for route in self.recipe]
        chosen = ((decision.tuning, decision.chosen) for decision in decisions)
        return [*found, *(route for tuning, best in chosen if best for route in self.at(tuning, best))]

    def named_stages(self, study: RunDir) -> tuple[list[Stage], dict[str, str]]:
        """Every stage as far as rates are chosen and networks to time are known, and what a person calls it.

        `study`: the study's directory, in the folder of the runs. Names are those beside a seed.
        """
        routes = [*self.tried, *self.routes(self.decide(study.path.parent))]
        stages, names, timing = all_stages(routes), labels(routes, seeds=False), read_timing(study)
        if timing is None:
            return stages, names
        return [*stages, timing.stage], {**names, timing.stage.id: timing.label}

    def at(self, tuning: Tuning, candidate: Candidate) -> list[Route]:
        """A route with the values of a candidate on the study's seeds."""
        config, name = candidate.config, tuning.pipeline
        # as in the recipe: what a dense training keeps is part of its hash, and the two shall share that training
        kept = kept_by(all_stages(self.recipe))
        builders = (StageBuilder(config, seed, contents=self.contents, kept=kept) for seed in config.seeds)
        return [make_route(name, chains(config)[name], b, {**tuning.point, RATES: TUNED}) for b in builders]


def plan_study(config: StudyConfig, recipe: Sequence[Route], *, source: str, contents: Contents) -> StudyPlan:
    """What is tried for the routes that `expand` gave; ConfigError for a value that does not fit."""
    if not config.tune:
        return StudyPlan(recipe, (), contents)
    found: dict[tuple[str, str], Tuning] = {}
    # A route is known by what it ends in. Points that make no difference to it lead to the same end, and are tuned
    # once.
    ends = {(route.pipeline, route.evaluation.id): route.point for route in recipe}
    known: dict[tuple[str, int], Stage] = {}
    kept = kept_by(all_stages(recipe))
    for point in points(config):
        options = list(_options(config, point, source))
        # the recipe, which comes first
        here = options[0][1]
        for name, chain in chains(here).items():
            # the point without the fields of the grid that make no difference to the route
            builder = StageBuilder(here, here.seeds[0], {}, contents, kept=kept)
            own = ends[name, make_route(name, chain, builder, {}).evaluation.id]
            if (key := (name, canonical(dict(own)))) not in found:
                tried = (Candidate(values, at, _tried(name, at, own, known, contents)) for values, at in options)
                found[key] = Tuning(name, own, _different(tried))
    return StudyPlan(recipe, list(found.values()), contents)


def _options(config: StudyConfig, point: Mapping[str, object], source: str) -> Iterator[tuple[Values, StudyConfig]]:
    """Every combination of the config's own and the listed values, the recipe first, with the config of each."""
    place = f"{source}: {describe(point)}" if point else source
    here = at_point(config, point, place)
    own = {key: own_rate(here.classifier, here.detector, key) for key in config.tune}
    choices = [[own[key], *(value for value in values if value != own[key])] for key, values in config.tune.items()]
    for chosen in product(*choices):
        values = dict(zip(own, chosen, strict=True))
        changes = {} if values == own else values
        yield values, at_point(config, {**point, **changes}, f"{place}: tune {words(values)}")


def _tried(
    name: str, config: StudyConfig, point: Mapping[str, object], known: dict[tuple[str, int], Stage], contents: Contents
) -> tuple[Route, ...]:
    """A route with some values on the tuning seeds, scored on the validation split."""
    builders = (StageBuilder(config, seed, known, contents, validating=True) for seed in config.tune_seeds)
    return tuple(make_route(name, chains(config)[name], builder, point) for builder in builders)


def _different(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that end in stages of their own, with the keys that tell them apart; their routes' points name the values.

    Of equal ones the first stays: there a key that makes no difference has the config's own value.
    """
    once: dict[tuple[str, ...], Candidate] = {}
    for candidate in candidates:
        once.setdefault(tuple(route.evaluation.id for route in candidate.routes), candidate)
    recipe, *others = once.values()
    # a key in which all that are left agree makes no difference to this route
    matter = [key for key, own in recipe.values.items() if any(c.values[key] != own for c in others)]
    found = []
    for candidate in (recipe, *others):
        values = {key: candidate.values[key] for key in matter}
        said = {RATES: RECIPE if candidate is recipe else words(values)}
        routes = tuple(replace(route, point={**route.point, **said}) for route in candidate.routes)
        found.append(replace(candidate, values=values, routes=routes))
    return tuple(found)


def words(values: Values) -> str:
    """Values by key in words: "detector.train.lr = 0.01"."""
    return ", ".join(f"{key} = {'none' if value is None else f'{value:g}'}" for key, value in values.items())


def _score(stage: Stage, runs: Path) -> float | None:
    try:
        metrics = stage.run(runs).read_result()["metrics"]
    except (OSError, ValueError):  # not there yet, or damaged, which whoever runs the stages says
        return None
    score: float | None = metrics["AP" if stage.kind == "evaluate" else "val_top1"]
    return score


def _divergence(routes: Sequence[Route], runs: Path) -> str:
    for run in (stage.run(runs) for stage in all_stages(routes)):
        if not run.done and run.failure.is_file():
            failure = read_json(run.failure)
            if failure.get("diverged"):
                return str(failure["error"])
    return ""
