"""The sections of a config: every key of a pipeline file is documented here.

`Machine` holds what does not change results beyond floating point: it stays out of the content hash of a run.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    field_validator,
    model_validator,
)

from classify.data import DATASETS, dataset_options
from classify.data.augment import AUGMENTATIONS
from classify.models import get_model
from pruning.select import Selection
from pruning.targets import TARGETS
from training.options import Fraction, Positive, Ratio, Section, changed, check_level, known, read_method_options

Augmentation = Annotated[str, AfterValidator(lambda name: known(name, AUGMENTATIONS, "augmentation"))]


class ClassifierTraining(Section):
    """How a classifier is trained; durations other than `epochs` are fractions of the schedule."""

    epochs: Positive
    batch_size: Positive
    lr: Annotated[float, Field(gt=0)]
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    norm_weight_decay: bool = True  # as in the study; False: normalisation and biases do not decay
    accumulate: Positive = 1  # parts of a batch that are computed one after the other; BatchNorm sees the parts
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Augmentation = "none"


class ClassifierData(Section):
    """A classification data set of `classify.data.DATASETS` and its options."""

    name: str
    options: dict[str, Any] = {}
    seed: int = 0  # of generated data; not the seed of a run

    @model_validator(mode="after")
    def _known_names(self) -> "ClassifierData":
        known(self.name, DATASETS, "data set")
        for option in self.options:
            known(option, dataset_options(self.name), f"option of data set {self.name!r}")
        return self


class Normalization(Section):
    """What the network subtracts from and divides pixels in 0..1 by, for each channel."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _of_the_same_channels(self) -> "Normalization":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std {len(self.std)}")
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
    # a trained unpruned network's, instead of training it, counted as if it had been; where a method changes the
    # training before it prunes, that training starts from them and is counted on top
    weights: Path | None = None
    # the head of `weights` is not taken but drawn anew, and the network is trained on the data set, from the others;
    # that training is counted, the one that made the weights is not
    replace_head: bool = False
    # None: that which `weights` of torchvision's and timm's networks were trained with, else the data set's
    normalization: Normalization | Literal["dataset"] | None = None
    rewind: Annotated[int, Field(ge=0)] = 0  # iterations of the dense training after which tickets take their weights

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
        if self.weights is not None and self.rewind:
            raise ValueError("rewind: weights that are given have no early iterations to go back to; leave out one")
        if self.replace_head and self.weights is None:
            raise ValueError("replace_head: there is no file of weights whose head it could replace; give weights too")
        return self

    def training(self, regime: Literal["train", "fine_tune", "scratch"]) -> ClassifierTraining:
        """The complete settings of a regime."""
        changes = {} if regime == "train" else getattr(self, regime)
        return changed(self.train, changes, regime)


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
    allow_partial: bool = False  # a result where far less than asked can be removed; otherwise that is an error

    @model_validator(mode="after")
    def _consistent(self) -> "Pruning":
        options = read_method_options(self.method, self.options)
        if "level" in self.model_fields_set:
            check_level(self.method, options, self.level)
        if self.target is not None:
            known(self.target, TARGETS, "target")
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


class Evaluation(Section):
    """What is done with a finished network."""

    scenes: Annotated[int, Field(ge=0)] = 6  # images drawn with each route's detections, of a detector
    latency_rounds: Positive = 20


class Slurm(Section):
    """What each job of a study asks a Slurm cluster for: one job a stage."""

    partition: str | None = None  # None: the cluster's default
    time_minutes: Positive = 240  # a stage that needs longer is stopped, queued again, and goes on where it was
    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: Positive = 1
    memory_gb: Annotated[float, Field(gt=0)] | None = None  # None: the cluster's default
    jobs: Positive = 100  # in the queue at a time
    retries: Annotated[int, Field(ge=0)] = 3  # of a job that ended without a result or an error and got no further
    poll_seconds: Annotated[float, Field(gt=0)] = 15.0
    signal_seconds: Positive = 120  # before the end of its time a job is told, to write its checkpoint
    extra: dict[str, str | int] = {}  # any other option of sbatch: account, qos, constraint


class Machine(Section):
    """Where and how it runs; not part of what defines a result."""

    executor: Literal["local", "slurm"] = "local"
    slurm: Slurm = Slurm()
    jobs: Positive = 1  # stages at a time on this machine, in processes of their own when more than one
    deterministic: bool | None = None  # only operations that repeat themselves bit for bit; None: on the CPU yes
    threads: Annotated[int, Field(ge=0)] = 0  # of PyTorch in each stage; 0: the cores shared among the jobs
    device: str = "auto"  # auto, cpu, cuda
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0  # data loading processes of a training that reads images from disk
    data_root: Path = Path("data")
    checkpoint_every: Positive = 100  # steps
