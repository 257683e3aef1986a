"""Pipelines as data: chains of steps, and their expansion into stages that are shared where they are equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from pruning.errors import Refusal
from pruning.methods import get_method
from study.config.detector import Detector
from study.config.load import merge, set_key, validate
from study.config.schema import StudyConfig
from study.plan.expected import check_expected
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES
from study.plan.order import check_prepared
from study.plan.retraining import Kept, kept_by
from study.plan.steps import STEPS, StageBuilder
from study.stages.contents import Contents
from study.stages.stage import Stage
from training.files import canonical
from training.type_words import did_you_mean

GivenStep = str | Mapping[str, dict[str, object]]  # its name, or that with what it changes
_PREPARING, _PRUNING = ("classify_for_pruning", "detect_before_pruning"), ("prune", "prune_detector")  # steps
_OF_ALL = (  # what is read of the config itself, and not at a point of the grid
    *("name", "title", "grid", "variants", "tune", "tune_seeds", "expect", "machine"),
    *("evaluate.latency_rounds", "evaluate.margin"),
)
RATES = "rates"  # the field of a point that tells a route with the config's own rates from the one with those chosen


@dataclass(frozen=True)
class Route:
    """One pipeline at one point of the grid with one seed: its stages in order; the last one's result is compared."""

    pipeline: str
    point: Mapping[str, object]
    seed: int
    steps: tuple[tuple[str, Stage], ...]

    @property
    def evaluation(self) -> Stage:
        return self.steps[-1][1]

    @property
    def stages(self) -> list[Stage]:
        """Every stage that the route needs, parents first."""
        return self.evaluation.with_ancestors()


def expand(config: StudyConfig, *, source: str, contents: Contents | None = None) -> list[Route]:
    """Every route of the study; equal stages are one object. `contents` finds, and keeps, what its files hold.

    A field of the grid on which a route does not depend is no part of its point: the unpruned network is one row.
    Raises ConfigError for a grid field or variant that does not fit, ValueError for a chain that makes no sense and for
    a published number of nothing that the study has.
    """
    _check_varied(config)
    check_expected(config, grid_fields(config))
    contents = contents or Contents()
    routes = _expand(config, {}, source, contents)
    # what a dense training keeps for one point is known when all are, and then it is one training for all
    kept = kept_by(all_stages(routes))
    return _without_idle_fields(_expand(config, kept, source, contents) if kept else routes)


def _expand(config: StudyConfig, kept: Kept, source: str, contents: Contents) -> list[Route]:
    routes: list[Route] = []
    # `known` holds the stages of all routes by hash and seed: two routes that ask for equal work get one object, and
    # the scheduler, which knows stages by their id, runs it once.
    known: dict[tuple[str, int], Stage] = {}
    for point in points(config):
        here = at_point(config, point, f"{source}: {describe(point)}")
        for name, chain in chains(here).items():
            for seed in here.seeds:
                builder = StageBuilder(here, seed, known, contents, kept=kept)  # what routes share is made once
                routes.append(make_route(name, chain, builder, point))
    return routes


def _check_varied(config: StudyConfig) -> None:
    """ValueError for what would be varied and is read once for the whole study: it would stay as it is, unsaid."""
    varied = {f"grid.{key}": key for key in config.grid}
    for name, changes in config.variants.items():
        for key, value in changes.items():
            parts = [f"{key}.{part}" for part in value] if isinstance(value, Mapping) else []
            varied |= {f"variants.{name}.{path}": path for path in (key, *parts)}
    for place, path in varied.items():
        if any(path == key or path.startswith(f"{key}.") for key in _OF_ALL):
            raise Refusal(f"{place}: it is of the whole study and cannot vary in it; make a study of each value")


def grid_fields(config: StudyConfig) -> dict[str, list[object]]:
    """What varies between the points of a study, and its values; the variants' names first."""
    return {**({"variant": list(config.variants)} if config.variants else {}), **config.grid}


def points(config: StudyConfig) -> list[dict[str, object]]:
    """Every combination of the grid's fields."""
    # without a grid the product of nothing is one point, {}
    fields = grid_fields(config)
    return [dict(zip(fields, values, strict=True)) for values in product(*fields.values())]


def chains(config: StudyConfig) -> dict[str, list[tuple[str, dict[str, object]]]]:
    """Each pipeline's steps with what they change; ValueError lists the known names."""
    if isinstance(config.pipelines, Mapping):
        wanted: dict[str, Sequence[GivenStep]] = dict(config.pipelines)
    else:
        named = PIPELINES if config.detector else CLASSIFIER_PIPELINES
        unknown = [name for name in config.pipelines if name not in named]
        if unknown:
            of = "" if config.detector else " of a study without `detector`"
            hint = did_you_mean(unknown[0], named)
            raise Refusal(f"pipelines: unknown pipeline {unknown[0]!r}{of}; {hint}known: {', '.join(named)}")
        wanted = {name: named[name].chain for name in config.pipelines}
    return {name: [_step(name, s) for s in chain] for name, chain in wanted.items()}


def _without_idle_fields(routes: Sequence[Route]) -> list[Route]:
    """The routes, each once: where several values of a field make no difference to a pipeline, its points lose it."""
    # Field by field, each on what the fields before left: with `prune.ratio` and `prune.method` in the grid the
    # unpruned network loses one after the other. Pipelines are looked at apart, since the same field matters to one and
    # not to another.
    left = list(routes)
    for field in dict.fromkeys(key for route in routes for key in route.point):
        for name in dict.fromkeys(route.pipeline for route in left):
            here = [route for route in left if route.pipeline == name and field in route.point]
            equal = _equal_values(field, here)
            left = [
                _without(field, route)
                if route.pipeline == name and field in route.point and canonical(route.point[field]) in equal
                else route
                for route in left
            ]
    # what now has the same name, point and seed ends in the same stage, and is one row
    once = {(route.pipeline, canonical(dict(route.point)), route.seed): route for route in left}
    return list(once.values())


def _equal_values(field: str, routes: Sequence[Route]) -> set[str]:
    """The largest set of values of a field under which these routes end in the same stages; empty if all differ."""
    # Where each value leads: the stage that a route ends in, at each point of the other fields and each seed. A stage's
    # id covers all stages before it, so an equal end means that all the work is equal.
    ends: dict[str, set[tuple[str, int, str]]] = {}
    for route in routes:
        rest = canonical(dict(_without(field, route).point))
        ends.setdefault(canonical(route.point[field]), set()).add((rest, route.seed, route.evaluation.id))
    # Values that lead to the same ends everywhere are one class. Only one class may lose the field: the rows of two
    # would have the same point and different results. The largest saves most rows, and of equal ones the first counts.
    classes: dict[frozenset[tuple[str, int, str]], set[str]] = {}
    for value, found in ends.items():
        classes.setdefault(frozenset(found), set()).add(value)
    largest = max(classes.values(), key=len, default=set())
    return largest if len(largest) > 1 else set()


def _without(field: str, route: Route) -> Route:
    return replace(route, point={key: value for key, value in route.point.items() if key != field})


def _step(pipeline: str, step: GivenStep) -> tuple[str, dict[str, object]]:
    # an empty mapping names no step, and is refused as the step ""
    name, changes = (step, {}) if isinstance(step, str) else next(iter(step.items()), ("", {}))
    if name not in STEPS or (not isinstance(step, str) and len(step) != 1):
        hint = did_you_mean(name, STEPS)
        raise Refusal(f"pipelines.{pipeline}: {step!r} is not a step; {hint}known: {', '.join(STEPS)}")
    return name, changes


def at_point(config: StudyConfig, point: Mapping[str, object], place: str) -> StudyConfig:
    """The config with a variant's changes and values by key path; ConfigError begins with `place`."""
    if not point:
        return config
    # At a point `variants` and `grid` are used up, and `expect` is about the whole grid. An empty `tune` would be
    # refused, as one that somebody wrote.
    left_out = {"variants", "grid", "expect"} | (set() if config.tune else {"tune"})
    data = config.model_dump(exclude=left_out)
    data["prune"] = config.prune.model_dump(exclude_unset=True)  # only what the file said: `target` refuses defaults
    if config.detector is not None:  # likewise: what the file left out, a Detectron2 YAML may say
        data["detector"] = config.detector.model_dump(exclude_unset=True)
    if config.guide is not None:  # its `prune` is as ours
        data["guide"] = config.guide.model_dump(exclude_unset=True)
    for key, value in point.items():
        if key == "variant":
            changes = config.variants[str(value)]
            # These two sections are replaced, not merged: options of one method mean nothing to another. All else of a
            # variant is laid over the config, and a value of the grid over both, in the order of the point.
            data = merge({k: v for k, v in data.items() if k not in {"prune", "guide"} & changes.keys()}, changes)
        else:
            set_key(data, key, value)
    return validate(StudyConfig, data, source=place)


def describe(point: Mapping[str, object]) -> str:
    """A point of the grid in words."""
    return "grid " + ", ".join(f"{key}={value}" for key, value in point.items())


def make_route(
    name: str, chain: Sequence[tuple[str, dict[str, object]]], builder: StageBuilder, point: Mapping[str, object]
) -> Route:
    """A pipeline's route with the config and the seed of `builder`; ValueError for a chain that makes no sense."""
    steps: list[tuple[str, Stage]] = []
    last: Stage | None = None
    prepared = False  # has a training gone by what pruning asks of it, and nothing been pruned since?
    for step, changes in _removing_once(chain, builder.config.prune.method):
        try:
            if prepared and step in _PRUNING:
                check_prepared(builder.effect, changes)
            prepared = step in _PREPARING or (prepared and step not in _PRUNING)
            last = STEPS[step](builder, last, changes)
        except ValueError as error:
            raise Refusal(f"pipelines.{name}: {step}: {error}") from error
        steps.append((step, last))
    _check_end(name, last, builder.config.detector)
    # a chain of detectors is scored by a stage of its own; a classifier's training and a pruning score themselves
    if last is not None and last.kind == "train_detector":
        steps.append(("evaluate", builder.evaluate(last)))
    return Route(name, point, builder.seed, tuple(steps))


def _removing_once(chain: Sequence[tuple[str, dict[str, object]]], method: str) -> list[tuple[str, dict[str, object]]]:
    """The chain for a method; one that removes weights while a detector trains leaves the classifier before it whole.

    Others only prepare the network for pruning in both trainings.
    """
    steps = [step for step, _ in chain]
    if "detect_before_pruning" not in steps or not get_method(method).removes_in_training:
        return list(chain)
    return [("classify" if step == "classify_for_pruning" else step, changes) for step, changes in chain]


def _check_end(name: str, last: Stage | None, detector: Detector | None) -> None:
    """ValueError unless the chain ends with something that a score can be read of."""
    found = last.kind if last else "nothing"
    if detector and found != "train_detector":
        raise Refusal(f"pipelines.{name}: a chain ends with a trained detector, this one with {found}")
    # a pruning that no training came before has a shape and no score
    trained = last is not None and "train_classifier" in (found, *(parent.kind for parent in last.parents))
    if not detector and (found not in ("train_classifier", "prune") or not trained):
        raise Refusal(f"pipelines.{name}: a chain ends with a trained classifier, this one with {found}")


def all_stages(routes: Sequence[Route]) -> list[Stage]:
    """Every stage once, parents first."""
    found: dict[str, Stage] = {}
    for route in routes:
        # a stage keeps the place where it first came, ahead of all that is made from it
        found |= {s.id: s for s in route.stages}
    return list(found.values())


def labels(routes: Sequence[Route], *, seeds: bool = True) -> dict[str, str]:
    """What a person calls a stage: the step, its seed, variant and rates if it is of one, the routes that use it."""
    users: dict[str, list[Route]] = {}
    steps: dict[str, str] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, []).append(route)
            # a stage that is no step of its own (what `shape` trains to prune it) goes by its kind
            steps.setdefault(stage.id, next((n for n, s in route.steps if s.id == stage.id), stage.kind))
    names = {}
    for stage in all_stages(routes):
        pipelines = list(dict.fromkeys(route.pipeline for route in users[stage.id]))
        # a variant, or rates, name a stage only where all of its routes have the same
        values = [{route.point.get(field) for route in users[stage.id]} for field in ("variant", RATES)]
        of_one = [str(value) for found in values if len(found) == 1 and (value := next(iter(found))) is not None]
        used = pipelines[0] if len(pipelines) == 1 else f"{len(pipelines)} routes"
        parts = [*([f"seed {stage.seed}"] if seeds else []), *of_one, used]
        names[stage.id] = f"{steps[stage.id]} ({', '.join(parts)})"
    return names
