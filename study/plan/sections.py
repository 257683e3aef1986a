"""The sections of a config that stages are made from: a study's, and those of the networks that guide a design."""

from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from study.config.detector import Detector
from study.config.schema import Guide
from study.config.sections import Classifier, Evaluation, Machine, Pruning


class Sections(Protocol):
    """The part of a config that stages are made from."""

    @property
    def classifier(self) -> Classifier: ...

    @property
    def prune(self) -> Pruning: ...

    @property
    def guide(self) -> Guide | None: ...

    def guided_classifier(self) -> Classifier: ...

    @property
    def detector(self) -> Detector | None: ...

    @property
    def evaluate(self) -> Evaluation: ...

    @property
    def machine(self) -> Machine: ...


@dataclass(frozen=True)
class GuidingSections:
    """The sections of the networks that a guided design follows."""

    classifier: Classifier
    prune: Pruning
    machine: Machine
    guide: None = None
    detector: None = None
    evaluate: Evaluation = field(default_factory=Evaluation)

    def guided_classifier(self) -> Classifier:
        return self.classifier


class PruningSettings(TypedDict, total=False):
    """The settings of a pruning; `files`: options that name files, by what is in these."""

    method: str
    options: dict[str, object]
    files: dict[str, list[dict[str, object]]]
    target: str | None
    selection: dict[str, object]
    calibration: dict[str, int]
    allow_partial: bool
