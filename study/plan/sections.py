"""The sections of a config that stages are made from: a study's, and those of the networks that guide a design."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from classify.models import stages_of
from pruning.methods import get_method
from pruning.select import check_stages
from study.config.detector import Detector
from study.config.pruning import Pruning
from study.config.schema import StudyConfig
from study.config.sections import Classifier, Evaluation, Machine
from study.stages.contents import Contents
from training.options import file_options


@dataclass(frozen=True)
class GivenSections:
    """Sections put together for one purpose: a single stage, or the networks that a guided design follows.

    Those that no asked stage needs may be left out; whoever reads them all the same finds None.
    """

    classifier: Classifier = None  # type: ignore[assignment]
    detector: Detector | None = None
    prune: Pruning = field(default_factory=Pruning)
    evaluate: Evaluation = field(default_factory=Evaluation)
    machine: Machine = field(default_factory=Machine)
    guide: None = None

    def guided_classifier(self) -> Classifier:
        return self.classifier


Sections = StudyConfig | GivenSections  # a config whose sections stages are made from


def _stages(config: Sections) -> int:
    """Of the network, and the FPN's, which is the last, where it is pruned too."""
    fpn = config.detector is not None and config.detector.prune_scope != "backbone"
    return len(stages_of(config.classifier.arch)) + fpn


class PruningSettings(TypedDict, total=False):
    """The settings of a pruning; `files`: options that name files, by what is in these."""

    method: str
    options: dict[str, object]
    files: dict[str, list[dict[str, object]]]
    target: str | None
    selection: dict[str, object]
    calibration: dict[str, int]
    allow_partial: bool
    between_layers: dict[str, object]


def pruning_settings(
    config: Sections, changes: Mapping[str, object], unit: Literal["images", "batches"], contents: Contents
) -> PruningSettings:
    """The settings of a pruning; `unit`: of what the method looks at, if it does."""
    complete = config.prune.changed(changes)
    selection = complete.selection()
    check_stages(selection, _stages(config), key="prune.ratio")
    looks = get_method(complete.method).needs != "nothing"
    # A file counts by its content: its name leaves the options, and its sum stands for it in the stage's hash.
    given: dict[str, list[dict[str, object]]] = {}
    for name in file_options(complete.method):
        files = complete.options.get(name)
        if files and isinstance(files, list | tuple):
            given[name] = [contents.file(Path(file), f"prune.options.{name}") for file in files]
    options = {name: value for name, value in complete.options.items() if name not in given}
    found: PruningSettings = {"method": complete.method, "options": options}
    if given:
        found["files"] = given
    found["target"] = complete.target
    found["selection"] = {**selection.__dict__, "ratio": list(selection.given_ratios())}
    if looks:
        found["calibration"] = complete.calibration.counted_by(unit)
    if complete.allow_partial:
        found["allow_partial"] = True
    if complete.between_layers is not None:
        found["between_layers"] = complete.between_layers.model_dump()
    return found
