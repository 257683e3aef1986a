"""The sections of a config: every key of a pipeline file is documented here.

`Machine` holds what does not change results beyond floating point: it stays out of the content hash of a run.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from classify.data import DATASETS, dataset_options, read_dataset_options
from classify.distillation import Distillation
from classify.models import get_model
from classify.published import is_published, published_preset
from classify.regimes import FINE_TUNE, RETRAINING
from classify.settings import TrainSettings
from pruning.errors import Refusal
from training.device import jobs_that_fit
from training.options import Positive, Section, changed
from training.settings import Run
from training.type_words import InWords, OneOf, known


def _a_name_or_a_place(value: object) -> object:
    # left to the union of the types, any text would be a str, and no file a Path
    return Path(value) if isinstance(value, str) and not is_published(value) else value


Weights = Annotated[
    Path | str | None,
    BeforeValidator(_a_name_or_a_place),
    InWords("path, torchvision:TAG, timm:TAG, package:NAME or null"),
]
"""A file of weights, or the name of published ones."""


class ClassifierData(Section):
    """A classification data set of `classify.data.DATASETS` and its options."""

    name: Annotated[str, OneOf(DATASETS, "data set")]
    """Data set to train and test the classifier on."""
    options: dict[str, object] = {}
    """Options of the data set, such as `image_size` of digits; a wrong name lists those there are."""
    seed: int = 0
    """Seed of generated images; not the seed of a run, so all runs see the same data."""

    @model_validator(mode="after")
    def _valid_options(self) -> "ClassifierData":
        for option in self.options:
            known(option, dataset_options(self.name), f"option of data set {self.name!r}")
        read_dataset_options(self.name, self.options)
        return self


class Normalization(Section):
    """What the network subtracts from and divides pixels in 0..1 by, for each channel."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    """Mean of each channel, subtracted from pixels in 0..1."""
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Standard deviation of each channel, by which pixels are then divided."""

    @model_validator(mode="after")
    def _of_the_same_channels(self) -> "Normalization":
        if len(self.mean) != len(self.std):
            raise Refusal(f"mean has {len(self.mean)} channels, std {len(self.std)}")
        return self


class Classifier(Section):
    """The network to prune and how it is trained before and after."""

    arch: str
    """Architecture's name: ours, torchvision's or timm's; `prune-transfer prune --list` prints them."""
    options: dict[str, object] = {}
    """Options of the architecture, such as {width: 0.5}."""
    # without it nothing is classified: detectors start from `weights`, and there is no head to ask for
    dataset: ClassifierData | None = None
    """Data set of the classifier; null: none, and `weights` alone go into the detector."""
    train: TrainSettings | None = None
    """How the unpruned network is trained on `dataset`; null where there is none."""
    fine_tune: dict[str, object] = {}
    """Keys of `classifier.train` that fine-tuning after pruning changes, such as {epochs: 20, lr: 0.001}."""
    # a regime of its own keeps what `fine_tune` says of all but the rates, its epochs too: equal budgets
    retrain: Annotated[str, OneOf(RETRAINING, "regime of retraining")] = FINE_TUNE
    """Regime of the step fine_tune: as `fine_tune` says, or for as many epochs at the rates of `train`."""
    # of networks that keep their weights: after `fine_tune` in every route, not after the scratch regimes
    distill: Distillation | None = None
    """How fine-tuning learns from the unpruned network of the same seed as well; null: from the labels alone."""
    scratch: dict[str, object] = {}
    """Keys of `classifier.train` that training from scratch changes; all but `epochs`, which the budget sets."""
    scratch_b_cap: Annotated[float, Field(gt=1)] | None = None
    """Scratch-B trains at most this many times `classifier.train.epochs`; null: no limit."""
    # a trained unpruned network's, instead of training it, counted as if it had been; where a method changes the
    # training before it prunes, that training starts from them and is counted on top
    weights: Weights = None
    """A trained unpruned network's weights, a file or published ones, used instead of training it; null: train it."""
    # the head of `weights` is not taken but drawn anew, and the network is trained on the data set, from the others;
    # that training is counted, the one that made the weights is not
    replace_head: bool = False
    """Draw the last layer of `weights` anew and train on the data set, starting from the other layers."""
    # None: that which `weights` of torchvision's and timm's networks were trained with, else the data set's
    normalization: Normalization | Literal["dataset"] | None = None
    """How pixels are normalised; null: as `weights` of torchvision or timm were trained, else as the data set."""
    rewind: Annotated[int, Field(ge=0)] = 0
    """Iteration of the dense training whose weights lottery tickets go back to; 0: the random start."""

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, value: str) -> str:
        get_model(value)
        return value

    @model_validator(mode="after")
    def _valid_changes(self) -> "Classifier":
        if isinstance(self.weights, str):
            published_preset(self.weights, self.arch, self.options)
        if "epochs" in self.scratch:
            raise Refusal("scratch.epochs: the budget of scratch_e and scratch_b follows from train.epochs")
        for name in ("fine_tune", "scratch") if self.train is not None else ():
            self.training(name)
        self._check_what_is_trained()
        if self.weights is not None and self.rewind:
            raise Refusal("rewind: weights that are given have no early iterations to go back to; leave out one")
        if self.replace_head and self.weights is None:
            raise Refusal("replace_head: there is no file of weights whose head it could replace; give weights too")
        return self

    def _check_what_is_trained(self) -> None:
        """ValueError where there is something to train and nothing to train it on, or the other way round."""
        if self.dataset is not None and self.train is not None:
            return
        if self.weights is None:
            absent = " and ".join(f"`{name}`" for name in ("dataset", "train") if getattr(self, name) is None)
            raise Refusal(f"{absent} missing: without `weights` the classifier is trained, which needs both")
        if self.dataset is not None:
            raise Refusal("train: missing; a classifier with a `dataset` is trained or fine-tuned on it")
        idle = ("train", "fine_tune", "retrain", "scratch", "scratch_b_cap", "distill", "replace_head", "rewind")
        fields = Classifier.model_fields
        set_idly = next((name for name in idle if getattr(self, name) != fields[name].default), None)
        if set_idly is not None:
            raise Refusal(f"{set_idly}: nothing is trained without `dataset`; give one or leave this out")
        if self.normalization == "dataset":
            raise Refusal("normalization: dataset: there is no `dataset`; give mean and std, or leave this out")

    @property
    def epochs(self) -> int:
        """Those of the unpruned network's training; 0 where nothing is trained."""
        return 0 if self.train is None else self.train.epochs

    def training(self, regime: Literal["train", "fine_tune", "scratch"]) -> TrainSettings:
        """The complete settings of a regime; ValueError where there is nothing to train on."""
        if self.train is None:
            raise Refusal(
                "trains a classifier, which needs classifier.dataset and classifier.train; from weights alone go"
                " unpruned, prune_then_detect, transfer_then_prune and detect_from_scratch"
            )
        changes = {} if regime == "train" else getattr(self, regime)
        return changed(self.train, changes, regime)


class Evaluation(Section):
    """What is done with a finished network."""

    scenes: Annotated[int, Field(ge=0)] = 6
    """Test images drawn into the report with the detections of each route; of detectors only."""
    latency_rounds: Positive = 20
    """Forward passes of each network that are timed for the latency, one image each, anew for each seed."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """Points by which a score may lie below another and count as no worse; null: 0.5, or 1 on few test images."""


_PARTITIONS = r"^[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*$"
_LONG_OPTION = re.compile("[a-z][a-z0-9_-]*")


class Slurm(Section):
    """What each job of a study asks a Slurm cluster for: one job a stage."""

    partition: (
        Annotated[
            str,
            Field(pattern=_PARTITIONS),
            InWords("name of letters, digits, `_`, `.` and `-`, or several with commas between them"),
        ]
        | None
    ) = None
    """Partition of the cluster; null: its default."""
    time_minutes: Positive = 240
    """Time limit of a job in minutes; a longer stage is queued again and goes on where it was."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a job."""
    cpus: Positive = 1
    """CPU cores of a job."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Main memory of a job in GB; null: the cluster's default."""
    jobs: Positive = 100
    """Jobs in the queue at a time."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a job is queued again that ended without a result or an error and made no progress."""
    poll_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Seconds between looks at the queue."""
    signal_seconds: Positive = 120
    """Seconds before its time limit at which a job is told to write its checkpoint."""
    extra: dict[str, str | int] = {}
    """Other options of sbatch, such as {account: mine, qos: high}."""

    @field_validator("extra")
    @classmethod
    def _stays_in_its_line(cls, value: dict[str, str | int]) -> dict[str, str | int]:
        """An option is one line of the job's script, whose next line is a command."""
        for option, given in value.items():
            if not _LONG_OPTION.fullmatch(option):
                raise Refusal(
                    f"{option!r} is no long option of sbatch: lower-case letters, digits, `_` and `-`, such as account"
                )
            if not str(given).isprintable():
                raise Refusal(f"{option}: {given!r} has a line break or another control character")
        return value


class Machine(Section):
    """Where and how it runs; not part of what defines a result."""

    executor: Literal["local", "slurm"] = "local"
    """Where stages run: on this machine, or as jobs of a Slurm cluster."""
    slurm: Slurm = Slurm()
    """What a job asks the cluster for, with executor: slurm."""
    jobs: Positive | Literal["auto"] = 1
    """Stages at a time on this machine, in a process each if more than one; auto: as the GPUs allow, or the cores."""
    deterministic: bool | None = None
    """Use only operations that repeat themselves bit for bit; null: yes on the CPU, no on a GPU."""
    gpus_per_stage: Positive = 1
    """GPUs on which a network is trained or a detector scored, a process each; a batch is shared out among them."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of PyTorch in each stage; 0: the cores are shared among the jobs."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, or cuda."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of training; auto: what is measured to be fast and safe on this device."""
    compile: bool = False
    """Compile networks for training by torch.compile: less time a step on a GPU, minutes before the first one."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that load data, of a training that reads images from disk; 0: the training process does."""
    data_root: Path = Path("data")
    """Folder of the classification data sets, relative to the working directory."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] = Run.checkpoint_minutes
    """Minutes between checkpoints, from which a killed training goes on; 0: one after each step."""

    @property
    def n_jobs(self) -> int:
        """Stages at a time, as a number."""
        if self.jobs != "auto":
            return self.jobs
        return jobs_that_fit(self.device, self.threads, self.gpus_per_stage)
