"""The typed schema of what can be run: a study, one classifier, one detector. Sections are in `sections.py`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pruning.targets import TARGETS
from study.detector_sections import Detector
from study.sections import Classifier, Evaluation, Machine, Pruning, Section


class StudyConfig(Section):
    """A whole study: what is trained, which routes are compared, on which seeds."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    title: str = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    classifier: Classifier
    prune: Pruning = Pruning()
    detector: Detector
    evaluate: Evaluation = Evaluation()
    pipelines: list[str] | dict[str, list[str | dict[str, dict[str, Any]]]]
    grid: dict[str, list[Any]] = {}
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _target_fits(self) -> "StudyConfig":
        name = self.prune.target
        if name is not None and TARGETS[name].arch != self.classifier.arch:
            raise ValueError(
                f"prune.target {name!r} is a shape of {TARGETS[name].arch!r}, not of {self.classifier.arch!r}"
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"seeds {list(value)} repeat themselves")
        return value


class ClassifyConfig(Section):
    """One classifier training alone: `tools/train_cls.py`."""

    seed: Annotated[int, Field(ge=0)] = 0
    classifier: Classifier
    regime: Literal["base", "fine_tune", "scratch_e", "scratch_b"] = "base"  # all but base start from a pruned run
    machine: Machine = Machine()


class DetectConfig(Section):
    """One detector training and its evaluation alone: `tools/train_det.py`."""

    seed: Annotated[int, Field(ge=0)] = 0
    detector: Detector
    init: Literal["inherited", "random"] = "inherited"  # random: the backbone's architecture without its weights
    evaluate: Evaluation = Evaluation()
    machine: Machine = Machine()
