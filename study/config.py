"""The typed schema of a study. Every key of a pipeline file is documented here.

`machine` holds what does not change results beyond floating point: it stays out of the content hash of a run.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from classify.data import DATASETS, dataset_options
from classify.data.augment import AUGMENTATIONS
from classify.models import get_model
from pruning.methods import get_method
from pruning.select import Selection
from pruning.targets import TARGETS

Fraction = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Unknown keys are errors, values are not changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionT = TypeVar("SectionT", bound=Section)


class ClassifierTraining(Section):
    """How a classifier is trained; durations other than `epochs` are fractions of the schedule."""

    epochs: Positive
    batch_size: Positive
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: str = "none"

    @field_validator("augmentation")
    @classmethod
    def _known_augmentation(cls, value: str) -> str:
        return _known(value, AUGMENTATIONS, "augmentation")


class ClassifierData(Section):
    """A classification data set of `classify.data.DATASETS` and its options."""

    name: str
    options: dict[str, Any] = {}
    seed: int = 0  # of generated data; not the seed of a run

    @model_validator(mode="after")
    def _known_names(self) -> "ClassifierData":
        _known(self.name, DATASETS, "data set")
        for option in self.options:
            _known(option, dataset_options(self.name), f"option of data set {self.name!r}")
        return self


class Classifier(Section):
    """The network to prune and how it is trained before and after."""

    arch: str
    options: dict[str, Any] = {}
    dataset: ClassifierData
    train: ClassifierTraining
    fine_tune: dict[str, Any] = {}  # what fine-tuning changes of `train`
    scratch: dict[str, Any] = {}  # what training from scratch changes of `train`; its epochs follow from the budget
    scratch_b_cap: Annotated[float, Field(gt=1)] | None = (
        None  # Scratch-B trains at most this many times `train.epochs`
    )

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, value: str) -> str:
        get_model(value)
        return value

    @model_validator(mode="after")
    def _valid_changes(self) -> "Classifier":
        if "epochs" in self.scratch:
            raise ValueError("scratch.epochs: the budget of scratch_e and scratch_b follows from train.epochs")
        for name in ("fine_tune", "scratch"):
            self.training(name)
        return self

    def training(self, regime: Literal["train", "fine_tune", "scratch"]) -> ClassifierTraining:
        """The complete settings of a regime."""
        changes = {} if regime == "train" else getattr(self, regime)
        return _changed(self.train, changes, regime)


class Pruning(Section):
    """What is removed: a published `target`, or a `method` and how far it goes (see pruning.select.Selection)."""

    method: str = "l1_filter"
    options: dict[str, Any] = {}
    target: str | None = None
    ratio: Ratio | tuple[Ratio, ...] = 0.5
    level: Literal["layer", "global"] = "layer"
    scope: Literal["inner", "all"] = "inner"
    skip: tuple[str, ...] = ()
    layers: dict[str, Ratio] = {}
    round_to: Positive = 1

    @model_validator(mode="after")
    def _consistent(self) -> "Pruning":
        method = get_method(self.method)
        try:
            TypeAdapter(method.options).validate_python(self.options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"options of {self.method!r}: {where}: {first['msg']}") from error
        if self.target is not None:
            _known(self.target, TARGETS, "target")
            fixed = {"ratio", "level", "scope", "skip", "layers", "round_to"} & self.model_fields_set
            if fixed:
                raise ValueError(
                    f"target {self.target!r} already says what is removed; drop {', '.join(sorted(fixed))}"
                )
        self.selection()
        return self

    def selection(self) -> Selection:
        """The selection that these keys ask for."""
        if self.target is not None:  # a target without one removes whole blocks or reads fewer inputs
            return TARGETS[self.target].selection or Selection(ratio=0.0)
        return Selection(
            ratio=self.ratio,
            level=self.level,
            scope=self.scope,
            skip=self.skip,
            layers=self.layers or None,
            round_to=self.round_to,
        )


class Scenes(Section):
    """The embedded detection data: scenes of several digits on photographs (detect/scenes.py)."""

    image_size: Annotated[int, Field(ge=32)] = 128
    train: Positive = 600
    val: Positive = 60
    test: Positive = 300
    digits_per_scene: tuple[Positive, Positive] = (2, 6)
    digit_size: tuple[Positive, Positive] = (16, 44)
    seed: int = 0


class CocoFiles(Section):
    """An annotation file in COCO's format and the folder of its images; relative to the working directory."""

    annotations: Path
    images: Path


class CocoData(Section):
    """A detection data set of the user's own."""

    train: CocoFiles
    test: CocoFiles


class DetectorData(Section):
    """Exactly one of the two."""

    digits: Scenes | None = None
    coco: CocoData | None = None

    @model_validator(mode="after")
    def _one(self) -> "DetectorData":
        if (self.digits is None) == (self.coco is None):
            raise ValueError("give exactly one of `digits` and `coco`")
        return self


class DetectorModel(Section):
    """Faster R-CNN with FPN around the classifier; None: as in `config_file` or Detectron2."""

    image_size: Positive = 800  # shorter side in pixels
    max_image_size: Positive = 1333  # longer side in pixels
    strides: tuple[Positive, ...] = (4, 8, 16, 32)
    norm: Literal["FrozenBN", "BN", "SyncBN", "GN"] = "FrozenBN"
    freeze_at: Annotated[int, Field(ge=0)] = 0  # 0: nothing is frozen, 1: the stem, 2: and the first stage, ...
    fpn_channels: Positive | None = None
    anchor_sizes: tuple[float, ...] | None = None  # pixels, one a level
    anchor_ratios: tuple[float, ...] | None = None
    rpn_batch_size: Positive | None = None
    roi_batch_size: Positive | None = None
    pre_nms_topk: Positive | None = None
    train_proposals: Positive | None = None
    test_proposals: Positive | None = None
    box_head_dim: Positive | None = None
    overrides: dict[str, Any] = {}  # Detectron2's keys, such as MODEL.RPN.NMS_THRESH
    config_file: Path | None = None  # a Detectron2 YAML that is merged in first


class DetectorTraining(Section):
    """The detection budget, the same for every route; durations are fractions of `iterations`."""

    iterations: Positive
    batch_size: Positive
    lr: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    gamma: float = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    flip: bool = False
    group_by_aspect: bool = False


class Detector(Section):
    """The detection half of every route."""

    dataset: DetectorData
    model: DetectorModel = DetectorModel()
    train: DetectorTraining
    fine_tune: dict[str, Any] = {}  # what training after pruning inside the detector changes of `train`
    # of the iterations, so that the budget stays equal
    fine_tune_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    from_scratch: dict[str, Any] = {
        "norm": "BN",
        "freeze_at": 0,
    }  # what a detector without pretraining changes of `model`

    @model_validator(mode="after")
    def _valid_changes(self) -> "Detector":
        if "iterations" in self.fine_tune:
            raise ValueError("fine_tune.iterations: the iterations follow from fine_tune_share")
        _changed(self.train, self.fine_tune, "fine_tune")
        scratch = self.scratch_model()
        if scratch.norm == "FrozenBN" or scratch.freeze_at:
            raise ValueError("from_scratch: a network without pretraining needs a trainable norm and freeze_at: 0")
        return self

    def scratch_model(self) -> DetectorModel:
        """The model settings of a detector that starts from random weights."""
        return _changed(self.model, self.from_scratch, "from_scratch")

    def split_iterations(self) -> tuple[int, int]:
        """Iterations before and after pruning inside the detector; their sum is the budget."""
        after = max(1, round(self.train.iterations * self.fine_tune_share))
        if after >= self.train.iterations:
            raise ValueError(f"train.iterations={self.train.iterations} cannot be split for pruning in the detector")
        return self.train.iterations - after, after

    def training(self, phase: Literal["train", "before_pruning", "fine_tune"]) -> DetectorTraining:
        """The complete settings of a phase."""
        if phase == "train":
            return self.train
        before, after = self.split_iterations()
        if phase == "before_pruning":
            return _changed(self.train, {"iterations": before}, phase)
        return _changed(self.train, {**self.fine_tune, "iterations": after}, phase)


class Evaluation(Section):
    """What is done with a finished detector."""

    scenes: Annotated[int, Field(ge=0)] = 6  # images drawn with each route's detections
    latency_rounds: Positive = 20


class Machine(Section):
    """Where and how it runs; not part of what defines a result."""

    jobs: Positive = 1  # stages at a time, in processes of their own when more than one
    threads: Annotated[int, Field(ge=0)] = 0  # of PyTorch in each stage; 0: the cores shared among the jobs
    device: str = "auto"  # auto, cpu, cuda
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0  # data loading processes of a detector training
    data_root: Path = Path("data")
    checkpoint_every: Positive = 100  # steps


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


def _known(value: str, choices: Any, what: str) -> str:
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(choices) or 'none'}")
    return value


def _changed(section: SectionT, changes: dict[str, Any], name: str) -> SectionT:
    """`section` with some keys changed, validated again."""
    try:
        return type(section).model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([name, *map(str, first["loc"])])
        choices = f"; known keys: {', '.join(type(section).model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"{key}: {first['msg']}{choices}") from error
