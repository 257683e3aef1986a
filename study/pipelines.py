"""Pipelines as data: chains of steps, and their expansion into stages that are shared where they are equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pruning.methods import get_method
from study.config import StudyConfig
from study.data import detection_data
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
    builder = _Builder(config, seed, known)
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


class _Builder:
    """Makes stages from a config; asking twice for the same stage gives the same object."""

    def __init__(self, config: StudyConfig, seed: int, known: dict[tuple[str, int], Stage]):
        self.config = config
        self.seed = seed
        self.known = known

    def stage(self, kind: str, settings: Mapping[str, Any], *parents: Stage) -> Stage:
        stage = Stage(kind, settings, parents, self.seed)
        return self.known.setdefault((stage.hash, self.seed), stage)

    def classify(self, parent: Stage | None, changes: dict[str, Any], *, effect: bool = False) -> Stage:
        _expect(parent, None)
        method = get_method(self.config.prune.method)
        settings = self._classifier("base", "train", changes)
        if effect and method.training_effect is not None:
            settings["effect"] = {"method": self.config.prune.method, "options": self.config.prune.options}
        return self.stage("train_classifier", settings)

    def classify_for_pruning(self, parent: Stage | None, changes: dict[str, Any]) -> Stage:
        return self.classify(parent, changes, effect=True)

    def shape(self, parent: Stage | None, changes: dict[str, Any]) -> Stage:
        """The pruned architecture, from as little as the method needs."""
        _expect(parent, None)
        prune = self.config.prune
        if get_method(prune.method).predefined and prune.selection().level == "layer":
            return self.prune(None, changes)
        return self.prune(self.classify_for_pruning(None, {}), changes)

    def prune(self, parent: Stage | None, changes: dict[str, Any]) -> Stage:
        if parent is not None:
            _expect(parent, "train_classifier")
        settings = {**self._pruning(changes), **({} if parent else self._network())}
        return self.stage("prune", settings, *([parent] if parent else []))

    def train_pruned(self, regime: str, parent: Stage | None, changes: dict[str, Any]) -> Stage:
        stage = _expect(parent, "prune")
        section = "fine_tune" if regime == "fine_tune" else "scratch"
        return self.stage("train_classifier", self._classifier(regime, section, changes), stage)

    def detect(
        self, parent: Stage | None, changes: dict[str, Any], phase: str = "train", kind: str = "train_classifier"
    ) -> Stage:
        stage = _expect(parent, kind)
        scratch = phase == "from_scratch"
        model = self.config.detector.scratch_model() if scratch else self.config.detector.model
        training = self.config.detector.training("train" if scratch else phase)  # type: ignore[arg-type]
        settings = {
            "data": self._detection(),
            "model": model.model_dump(mode="json"),
            "train": {**training.model_dump(mode="json"), **_checked(changes, training)},
            "init": "random" if scratch else "inherited",
        }
        return self.stage("train_detector", settings, stage)

    def prune_detector(self, parent: Stage | None, changes: dict[str, Any]) -> Stage:
        stage = _expect(parent, "train_detector")
        return self.stage("prune_detector", self._pruning(changes), stage)

    def evaluate(self, parent: Stage) -> Stage:
        settings = {"data": self._detection(), "scenes": self.config.evaluate.scenes, "split": "test"}
        return self.stage("evaluate", settings, parent)

    def _network(self) -> dict[str, Any]:
        """The architecture, and the data whose classes and normalisation it has."""
        dataset = self.config.classifier.dataset.model_dump(mode="json")
        return {"arch": self.config.classifier.arch, "arch_options": self.config.classifier.options, "dataset": dataset}

    def _classifier(self, regime: str, section: Any, changes: dict[str, Any]) -> dict[str, Any]:
        training = self.config.classifier.training(section)
        return {
            **self._network(),
            "regime": regime,
            "train": {**training.model_dump(mode="json"), **_checked(changes, training)},
            "cap": self.config.classifier.scratch_b_cap,
        }

    def _pruning(self, changes: dict[str, Any]) -> dict[str, Any]:
        data = {**self.config.prune.model_dump(mode="json", exclude_unset=True), **changes}
        complete = type(self.config.prune).model_validate(data)
        selection = complete.selection()
        return {
            "method": complete.method,
            "options": complete.options,
            "target": complete.target,
            "selection": {**selection.__dict__, "ratio": list(selection.stage_ratios())},
        }

    def _detection(self) -> dict[str, Any]:
        return detection_data(self.config.detector.dataset)


def _expect(stage: Stage | None, kind: str | None) -> Any:
    """The stage before, if it is of the kind that the step works on."""
    found = stage.kind if stage else None
    if found != kind:
        raise ValueError(f"comes after {kind or 'nothing'}, here it comes after {found or 'nothing'}")
    return stage


def _checked(changes: Mapping[str, Any], section: Any) -> Mapping[str, Any]:
    """Changes of a step, validated as the section they change."""
    if changes:
        type(section).model_validate({**section.model_dump(), **changes})
    return changes


# what each step of a chain adds; the value of a step in a user's chain changes that step's settings
STEPS: dict[str, Any] = {
    "classify": _Builder.classify,
    "classify_for_pruning": _Builder.classify_for_pruning,
    "shape": _Builder.shape,
    "prune": _Builder.prune,
    "fine_tune": lambda b, parent, changes: b.train_pruned("fine_tune", parent, changes),
    "scratch_e": lambda b, parent, changes: b.train_pruned("scratch_e", parent, changes),
    "scratch_b": lambda b, parent, changes: b.train_pruned("scratch_b", parent, changes),
    "detect": _Builder.detect,
    "detect_before_pruning": lambda b, parent, changes: b.detect(parent, changes, "before_pruning"),
    "prune_detector": _Builder.prune_detector,
    "fine_tune_detector": lambda b, parent, changes: b.detect(parent, changes, "fine_tune", "prune_detector"),
    "detect_from_scratch": lambda b, parent, changes: b.detect(parent, changes, "from_scratch", "prune"),
}
