"""Pipelines as data: chains of steps, and their expansion into stages that are shared where they are equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from study.builder import STEPS, StageBuilder
from study.config import StudyConfig
from study.load import set_key, validate
from study.stages import Stage

# In Liu et al. (ICLR 2019) prune_then_transfer is called Prune-C and transfer_then_prune Prune-D. Where a method's
# layer widths do not depend on trained weights, `shape` costs nothing; otherwise it trains a classifier and prunes it.
PIPELINES: dict[str, list[str]] = {
    "unpruned": ["classify", "detect"],
    "prune_then_transfer": ["classify_for_pruning", "prune", "fine_tune", "detect"],
    "transfer_then_prune": ["classify_for_pruning", "detect_before_pruning", "prune_detector", "fine_tune_detector"],
    "scratch_e": ["shape", "scratch_e", "detect"],
    "scratch_b": ["shape", "scratch_b", "detect"],
    "detect_from_scratch": ["shape", "detect_from_scratch"],
}


@dataclass(frozen=True)
class Route:
    """One pipeline at one point of the grid with one seed: its stages in order, the last an evaluation."""

    pipeline: str
    point: Mapping[str, Any]
    seed: int
    steps: tuple[tuple[str, Stage], ...]

    @property
    def evaluation(self) -> Stage:
        return self.steps[-1][1]

    @property
    def stages(self) -> list[Stage]:
        """Every stage that the route needs, parents first."""
        return self.evaluation.with_ancestors()


def expand(config: StudyConfig, *, source: str) -> list[Route]:
    """Every route of the study; equal stages are one object.

    Raises ConfigError for a grid field that does not fit, ValueError for a chain that makes no sense.
    """
    routes: list[Route] = []
    known: dict[tuple[str, int], Stage] = {}
    keys = list(config.grid)
    for values in product(*config.grid.values()):
        point = dict(zip(keys, values, strict=True))
        at_point = _at_point(config, point, source)
        for name, chain in chains(at_point).items():
            for seed in at_point.seeds:
                routes.append(_route(name, chain, at_point, point, seed, known))
    return routes


def chains(config: StudyConfig) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Each pipeline's steps with what they change; ValueError lists the known names."""
    if isinstance(config.pipelines, Mapping):
        wanted: dict[str, Sequence[Any]] = dict(config.pipelines)
    else:
        unknown = [name for name in config.pipelines if name not in PIPELINES]
        if unknown:
            raise ValueError(f"pipelines: unknown pipeline {unknown[0]!r}; known: {', '.join(PIPELINES)}")
        wanted = {name: PIPELINES[name] for name in config.pipelines}
    return {name: [_step(name, s) for s in chain] for name, chain in wanted.items()}


def _step(pipeline: str, step: Any) -> tuple[str, dict[str, Any]]:
    name, changes = (step, {}) if isinstance(step, str) else next(iter(step.items()), ("", {}))
    if name not in STEPS or (not isinstance(step, str) and len(step) != 1):
        raise ValueError(f"pipelines.{pipeline}: {step!r} is not a step; known: {', '.join(STEPS)}")
    return name, changes


def _at_point(config: StudyConfig, point: Mapping[str, Any], source: str) -> StudyConfig:
    data = config.model_dump()
    for section in ("prune",):  # only what the file said: `target` refuses defaults beside it
        data[section] = config.prune.model_dump(exclude_unset=True)
    for key, value in point.items():
        set_key(data, key, value)
    return validate(StudyConfig, data, source=f"{source}: grid {dict(point)}") if point else config


def _route(
    name: str,
    chain: Sequence[tuple[str, dict[str, Any]]],
    config: StudyConfig,
    point: Mapping[str, Any],
    seed: int,
    known: dict[tuple[str, int], Stage],
) -> Route:
    builder = StageBuilder(config, seed, known)
    steps: list[tuple[str, Stage]] = []
    last: Stage | None = None
    for step, changes in chain:
        try:
            last = STEPS[step](builder, last, changes)
        except ValueError as error:
            raise ValueError(f"pipelines.{name}: {step}: {error}") from error
        steps.append((step, last))
    if last is None or last.kind != "train_detector":
        raise ValueError(f"pipelines.{name}: a chain ends with a trained detector, this one with {chain[-1:]}")
    steps.append(("evaluate", builder.evaluate(last)))
    return Route(name, point, seed, tuple(steps))
