"""What the training of a classifier is told: the keys of a config, and what a run adds to them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fvcore.common.param_scheduler import ParamScheduler
from pydantic import Field, model_validator

from classify.data.augment import AUGMENTATIONS
from pruning.errors import Refusal
from training import settings
from training.options import Fraction, Positive
from training.schedule import lr_schedule
from training.type_words import OneOf


class TrainSettings(settings.Optimisation):
    """How a classifier is trained; durations other than `epochs` are fractions of the schedule."""

    epochs: Positive
    """Passes over the training images."""
    batch_size: Positive
    """Images per step, over all parts (`accumulate`) and processes."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser: SGD with momentum, or Adam, which does not read `momentum`."""
    nesterov: bool = False
    """Nesterov's form of SGD's momentum."""
    norm_weight_decay: bool = True
    """Whether normalisation layers and biases decay as well, as in the study."""
    accumulate: Positive = 1
    """Parts of a batch computed one after the other, to save memory; BatchNorm sees one part at a time."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """Course of the learning rate: down by `gamma` at `milestones`, along a cosine to 0, or constant."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Where the rate is multiplied by `gamma` (schedule `step`), as fractions of the schedule, ascending."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the schedule in which the learning rate rises from a thousandth of `lr`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target probability that is spread over all classes."""
    augmentation: Annotated[str, OneOf(AUGMENTATIONS, "augmentation")] = "none"
    """Random changes of the training images."""

    @model_validator(mode="after")
    def _has_an_image_for_each_part(self) -> "TrainSettings":
        if self.accumulate > self.batch_size:
            raise Refusal(f"accumulate: {self.accumulate} is outside 1..batch_size={self.batch_size}")
        return self

    def lr_schedule(self) -> ParamScheduler:
        """Multiplier of `lr` by progress."""
        return lr_schedule(self.schedule, milestones=self.milestones, gamma=self.gamma, warmup=self.warmup)

    def steps_per_epoch(self, n_images: int) -> int:
        """Steps of one epoch, the last one with fewer images perhaps; ValueError for a batch that is too large."""
        if self.batch_size > n_images:
            raise Refusal(f"batch_size={self.batch_size} is larger than the training set of {n_images} images")
        return -(-n_images // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class TrainRun(settings.Run):
    """What one run adds. `mean`, `std`: of the network's input, for each channel, of pixels in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
