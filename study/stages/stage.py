"""A stage: a pure function of its settings, its parents' artifacts and a seed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

import torch
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from classify.models import own_defaults
from detect.data.sets import DATASETS
from detect.settings import DetectorSettings
from pruning.errors import Refusal
from pruning.methods import get_method
from pruning.select import Selection
from study.config.pruning import CalibrationData
from study.config.sections import ClassifierData, Machine
from study.stages.progress import Recorder
from study.stages.settings import (
    Evaluate,
    Latency,
    Prune,
    PruneDetector,
    TakeWeights,
    TrainClassifier,
    TrainDetector,
)
from study.stages.store import RunDir
from training.device import Precision
from training.files import content_hash
from training.options import Section, SectionT, validated

# the declarations of what stages' settings hold under these names; under `train` it is as the kind says
_SECTIONS: dict[str, type] = {
    "dataset": ClassifierData,
    "model": DetectorSettings,
    "calibration": CalibrationData,
    "selection": Selection,
    **{name: source.options for name, source in DATASETS.items() if source.generated},
}
_OPTIONS = {"options": "method", "arch_options": "arch"}  # options, and the setting beside them that says of what


@dataclass(frozen=True)
class Kind:
    """What stages of one kind do.

    `version` is raised when the code changes what equal settings give, so that old results are not taken for new ones.
    `place`: the module and the function that runs a stage, loaded when one runs: detectors need Detectron2, and
    classification works without. `settings`: what the stages' settings hold.
    """

    version: int
    place: str
    settings: type[Section]

    def run(self, context: "Context") -> dict[str, object]:
        """Run one stage; what its `result.json` says."""
        return resolve_name(self.place)(context)


# To add a kind: a module with its function, the class of its settings, and a line here.
KINDS: dict[str, Kind] = {
    "train_classifier": Kind(2, "study.stages.classifier:run_train_classifier", TrainClassifier),
    "take_weights": Kind(1, "study.stages.take_weights:run_take_weights", TakeWeights),
    "prune": Kind(3, "study.stages.prune:run_prune", Prune),
    "train_detector": Kind(3, "study.stages.detector:run_train_detector", TrainDetector),
    "prune_detector": Kind(3, "study.stages.prune_detector:run_prune_detector", PruneDetector),
    "evaluate": Kind(2, "study.stages.evaluate:run_evaluate", Evaluate),
    "latency": Kind(1, "study.stages.latency:run_latency", Latency),
}


@dataclass(frozen=True)
class Stage:
    """`settings` is everything that defines the result besides `parents` and `seed`; plain JSON, typed by `read`.

    The first of `parents` holds the network that a stage goes on from; of a distilled training the second is the
    teacher.
    """

    kind: str
    settings: Mapping[str, Any]
    parents: tuple["Stage", ...]
    seed: int

    @cached_property
    def hash(self) -> str:
        """Content hash over kind, version, identity and the parents' hashes; the seed stands beside it."""
        # Without the seeds of the parents: they have the seed of this stage, and where they do not the settings say
        # which (`guide_seeds`).
        parents = [f"{p.kind}-{p.hash}" for p in self.parents]
        return content_hash([self.kind, KINDS[self.kind].version, self.identity(), parents])

    def identity(self) -> dict[str, object]:
        """The settings that differ from their defaults, places aside: a new one that is off changes no hash."""
        training = KINDS[self.kind].settings.model_fields.get("train")
        sections = _SECTIONS if training is None else {**_SECTIONS, "train": cast(type, training.annotation)}
        found = what_differs(_without_places(self.settings), sections)
        assert isinstance(found, dict)
        return found

    @property
    def id(self) -> str:
        """`<kind>-<hash>/seed<k>`, the run directory's place below the runs folder."""
        return f"{self.kind}-{self.hash}/seed{self.seed}"

    def read(self, model: type[SectionT]) -> SectionT:
        """The settings as the class that the kind has for them, or a base of it; ValueError names what does not fit."""
        assert isinstance(self._typed, model)
        return self._typed

    @cached_property
    def _typed(self) -> Section:
        return validated(KINDS[self.kind].settings, dict(self.settings), self.kind)

    def run(self, runs: Path) -> RunDir:
        return RunDir(runs / self.id)

    def with_ancestors(self) -> list["Stage"]:
        """This stage and all it depends on, parents first, each once; a teacher before the route's own stages."""
        # whoever looks back for the nearest stage of a kind then finds the route's own before the teacher's
        found: dict[str, Stage] = {}
        for parent in self.parents[::-1] if self.settings.get("distill") else self.parents:
            found |= {s.id: s for s in parent.with_ancestors()}
        return [*found.values(), self]

    def __hash__(self) -> int:
        # the one of a dataclass would hash `settings`, a mapping, which has no hash
        return hash(self.id)


def load_stage(run: Path) -> Stage:
    """The stage whose finished run directory this is, with its ancestors, from their `config.yaml`.

    ValueError if the directory is none, is not finished, or its name does not belong to its content.
    """
    if not RunDir(run).config.is_file():
        raise Refusal(f"{run}: not a run directory (it has no config.yaml)")
    if not RunDir(run).done:
        raise Refusal(f"{run}: this run is not finished (it has no result.json)")
    try:
        data = yaml.safe_load(RunDir(run).config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"{RunDir(run).config}: not valid YAML: {' '.join(str(error).split())}") from error
    runs = run.resolve().parents[1]
    # their names are checked on the way, so a config that was changed anywhere before is found here
    parents = tuple(load_stage(runs / parent) for parent in data["parents"])
    stage = Stage(data["kind"], data["settings"], parents, data["seed"])
    if (runs / stage.id) != run.resolve():
        raise Refusal(f"{run}: its config.yaml belongs to {stage.id}; it was moved, changed, or is of another version")
    return stage


def what_differs(settings: object, sections: Mapping[str, type]) -> object:
    """JSON data of settings without what is off (null, false, empty), and of sections what differs from its default.

    Options are as they were given, without those that are off as they are by default.
    """
    if not isinstance(settings, Mapping):
        return settings
    found = {}
    for name, value in settings.items():
        if name in sections and isinstance(value, Mapping):
            default = defaults(sections[name])
            # in a section "off" may be what differs from its default, so only equality leaves a key out
            value = {key: own for key, own in value.items() if key not in default or own != default[key]}
        elif name in _OPTIONS and isinstance(value, Mapping):
            default = _option_defaults(name, settings) if any(map(_is_off, value.values())) else {}
            value = {k: v for k, v in value.items() if not _is_off(v) or k not in default or v != default[k]}
        elif isinstance(value, Mapping):
            value = what_differs(value, sections)
        if not _is_off(value):
            found[name] = value
    return found


def _option_defaults(name: str, settings: Mapping[str, Any]) -> dict[str, object]:
    """Of the options under this name; of architectures that are not ours they are not known."""
    of = settings[_OPTIONS[name]]
    if name == "arch_options":
        return own_defaults(of)
    found: dict[str, object] = to_jsonable_python(vars(get_method(of).options()), fallback=str)
    return found


def _is_off(value: object) -> bool:
    return value is None or value is False or value == {} or value == []


@cache
def defaults(section: type) -> dict[str, object]:
    """The defaults of a section of a config or of a dataclass, as JSON."""
    if issubclass(section, BaseModel):
        fields = section.model_fields
        values = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
        optional = [name for name, field in fields.items() if not field.is_required()]
    else:
        values = {field.name: field.default for field in dataclasses.fields(section)}  # type: ignore[arg-type]
        optional = [name for name, value in values.items() if value is not dataclasses.MISSING]
    found: dict[str, object] = to_jsonable_python({name: values[name] for name in optional})
    return found


def _without_places(settings: object) -> object:
    """Settings without what only says where files are on this machine, or that they may be fetched."""
    if isinstance(settings, Mapping):
        return {key: _without_places(value) for key, value in settings.items() if key not in ("paths", "download")}
    if isinstance(settings, list | tuple):
        return [_without_places(value) for value in settings]
    return settings


@dataclass(frozen=True)
class Context:
    """One stage about to run on this machine."""

    stage: Stage
    runs: Path
    machine: Machine
    report: Recorder
    settled: Precision | None = None  # the study's answer to `machine.precision`

    @property
    def run(self) -> RunDir:
        return self.stage.run(self.runs)

    @property
    def parent(self) -> RunDir:
        """The run directory of the stage's parent."""
        return self.stage.parents[0].run(self.runs)

    @property
    def data(self) -> Path:
        """Where generated detection data is kept: beside the runs."""
        return self.runs / "data"

    @property
    def precision(self) -> str | Precision:
        """What this stage computes in, if it trains."""
        return self.settled or self.machine.precision

    @property
    def device(self) -> str:
        """Where this stage computes."""
        return device_of(self.machine)


def device_of(machine: Machine) -> str:
    """`cuda` where there is one, unless the machine section says otherwise."""
    if machine.device != "auto":
        return machine.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def processes_of(stage: Stage, machine: Machine) -> int:
    """How many processes run a stage together: several where it trains a network or scores a detector."""
    return machine.gpus_per_stage if stage.kind in ("train_classifier", "train_detector", "evaluate") else 1


@dataclass(frozen=True)
class Task:
    """A stage to run below `runs` on a machine; `label` is what a person calls it.

    `precision`: what `machine.precision` was settled to; None: that is settled where the stage runs.
    """

    stage: Stage
    label: str
    runs: Path
    machine: Machine
    precision: Precision | None = None

    @property
    def run(self) -> RunDir:
        return self.stage.run(self.runs)
