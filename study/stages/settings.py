"""What the settings of each kind of stage hold, typed. A stage keeps them as JSON, which its name follows from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

import classify.distillation
import classify.settings
import detect.settings
from pruning.graph.members import Group
from pruning.methods import MethodOptions, Request
from pruning.select import Selection
from pruning.targets import Target, get_target
from study.config.pruning import CalibrationData
from study.config.sections import Normalization
from training.options import Section, read_method_options

Data = dict[str, Any]  # a data set as `study.stages.contents.Contents` gives it
Scope = Literal["backbone", "backbone+fpn"]


def _selection(given: Mapping[str, Any]) -> Selection:
    """From JSON, which has a list of ratios also where it is one."""
    ratio = given.get("ratio", Selection.ratio)
    ratios = tuple(ratio) if isinstance(ratio, Sequence) else (ratio,)
    skip = tuple(given.get("skip", Selection.skip))
    return Selection(**{**given, "ratio": ratios[0] if len(ratios) == 1 else ratios, "skip": skip})


def _set(given: Mapping[str, object]) -> dict[str, object]:
    """Without what is null because a key of Detectron2's says it."""
    return {name: value for name, value in given.items() if value is not None}


class GivenFile(Section):
    """A file of the user's: the SHA-256 of its bytes, and in `paths` where it is, at `file`."""

    sha256: str
    paths: dict[str, str]

    @property
    def file(self) -> Path:
        return Path(self.paths["file"])


class GivenWeights(GivenFile):
    """Weights that a training starts from, or that are taken for its result.

    `name`: of published ones. `counted_epochs`: of the training that they stand for, where the stage itself trains on
    from them. `sha256` empty: they are not on this machine, and `paths` says why; a study can be planned, not run.
    """

    name: str | None = None
    replace_head: bool = False
    counted_epochs: int = 0


class SourcedNormalization(Normalization):
    """What the network's input is normalised by, and whose numbers these are."""

    source: str


class MadeFor(Section):
    """Side in pixels of the images that a network was trained for, and the classes of its head."""

    image_size: int
    num_classes: int


class OwnNetwork(Section):
    """The unpruned network that a stage makes itself, and the data whose classes it has.

    `dataset` empty: nothing is classified, and `made_for` and `normalization` say what its weights were trained for.
    """

    arch: str
    arch_options: dict[str, object]
    dataset: Data = {}
    normalization: SourcedNormalization | None = None
    made_for: MadeFor | None = None


class Asked(Section):
    """What is asked of a pruning method. `files`: its options that name files, by what is in these."""

    method: str
    options: dict[str, object]
    files: dict[str, list[GivenFile]] = {}
    selection: Annotated[Selection, BeforeValidator(_selection)] = Selection()

    def method_options(self) -> MethodOptions:
        """The typed options of the method."""
        files = {name: [str(file.file) for file in given] for name, given in self.files.items()}
        return read_method_options(self.method, {**self.options, **files})


class Effect(Asked):
    """What a method adds to the training before it prunes; `selection` holds what of it the effect depends on."""

    scope: Scope = "backbone"

    def request(self, groups: Sequence[Group], seed: int, example: Tensor) -> Request[MethodOptions]:
        """What the effect is asked; `example`: an input of the network that trains (1, C, H, W)."""
        return Request(groups, self.selection, self.method_options(), seed, example=example)


class Cut(Asked):
    """One pruning."""

    target: str | None
    calibration: CalibrationData = CalibrationData()
    allow_partial: bool = False

    @property
    def structural(self) -> Target | None:
        """The published shape, if it drops blocks or reads fewer inputs."""
        return get_target(self.target) if self.target is not None and is_structural(self.target) else None


class TrainClassifier(OwnNetwork):
    """`cap`: of the epochs of Scratch-B. `snapshot_at`: the iteration whose weights are kept for rewinding.

    `snapshot_epochs`: after how many epochs weights are kept for retraining that goes back to them. `rewound_to`: the
    epoch of the dense training from which its schedule is followed once more. `untested`: rates are chosen by the
    result, so the test split is not looked at. `distill`: the second stage before is the teacher.
    """

    regime: str
    train: classify.settings.TrainSettings
    cap: float | None = None
    fine_tune_epochs: int = 0
    snapshot_at: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    rewound_to: int | None = None
    effect: Effect | None = None
    weights: GivenWeights | None = None
    untested: bool = False
    distill: classify.distillation.Distillation | None = None

    @property
    def trains(self) -> bool:
        """Does the stage train, rather than take the weights that are given as a finished training?"""
        return self.weights is None or self.effect is not None or self.weights.replace_head

    @property
    def counted_epochs(self) -> int:
        """The epochs that its cost counts on top of its own: of the training that given weights stand for."""
        return 0 if self.weights is None else self.weights.counted_epochs


class TakeWeights(OwnNetwork):
    """A network as its weights have it, trained elsewhere; what that cost is not known."""

    weights: GivenWeights


class Prune(Cut):
    """`network`: of a stage that makes its network itself, where only the shape is wanted.

    `between_layers`: of the fine-tuning after each layer. `untested`: as of a training. `guide_seeds`: of the networks
    that a guided design follows, empty for seed 0 alone; a stage's hash has no seed of its parents.
    """

    network: OwnNetwork | None = None
    guide_seeds: tuple[int, ...] = ()
    between_layers: classify.settings.TrainSettings | None = None
    untested: bool = False

    @model_validator(mode="before")
    @classmethod
    def _gather_network(cls, data: dict[str, object]) -> dict[str, object]:
        # a stage has the keys of its network among its own, as a training has them
        own = {name: data[name] for name in OwnNetwork.model_fields if name in data}
        return {**{name: value for name, value in data.items() if name not in own}, "network": own or None}


class DetectorBudget(Section):
    """What the iterations of a detector follow from; `iterations`, `classifier_epochs`: the unpruned route's."""

    rule: str  # of detect.budgets.BUDGETS
    iterations: int
    classifier_epochs: int


class Pretraining(Section):
    """What a route that prunes a trained classifier spends: epochs of the dense network, and of the pruned one after.

    `distilled`: is the pruned one distilled? `distill`: how its detector is.
    """

    epochs: int
    fine_tune_epochs: int
    distilled: bool = False
    distill: detect.settings.Distillation | None = None


class DetectorTraining(detect.settings.TrainSettings):
    """As in a config, but none where a detector is pruned right after the transfer."""

    iterations: Annotated[int, Field(ge=0)]


class TrainDetector(Section):
    """`init`: start the backbone from the weights of the stage before, or from random ones.

    `recalibrate`: estimate BatchNorm's statistics anew on the training images before the first iteration.
    `pretraining`: what another route may spend; where the stages before cost less, the detector trains longer for it.
    `distill`: the second stage before is the teacher. `retrain`: the regime after pruning inside the detector, if it is
    one of its own; `rewound_to`: the iteration of the training before from which its schedule is followed once more.
    """

    data: Data
    model: Annotated[detect.settings.DetectorSettings, BeforeValidator(_set)]
    train: DetectorTraining
    init: Literal["inherited", "random"]
    recalibrate: bool = False
    budget: DetectorBudget | None = None
    pretraining: Pretraining | None = None
    effect: Effect | None = None
    distill: detect.settings.Distillation | None = None
    retrain: str | None = None
    rewound_to: int | None = None


class PruneDetector(Cut):
    """`scope`: what is pruned of the detector."""

    scope: Scope = "backbone"


class Evaluate(Section):
    """`scenes`: how many test images are drawn with their detections.

    `classes`: of the detector, where `data` is another data set than it was trained on.
    """

    data: Data
    scenes: int
    split: str
    classes: tuple[str, ...] | None = None


class TimedNetwork(Section):
    """`shape`: all that the time of a network follows from; `paths`: at `run`, the finished stage that has such a one.

    Which weights it has, and which channels were kept, makes no difference.
    """

    shape: dict[str, object]
    paths: dict[str, str]


class Latency(Section):
    """Networks by name, each timed `sets` times for `rounds` passes of one image."""

    networks: dict[str, TimedNetwork]
    rounds: int
    sets: int


def is_structural(target: str | None) -> bool:
    """Does this published shape drop blocks or read fewer inputs, which no selection of channels can say?"""
    return target is not None and bool(get_target(target).select or get_target(target).blocks)
