"""What a detector and its training are told, without Detectron2."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from detect.data.sets import DATASETS
from pruning.errors import Refusal
from training.device import Precision
from training.options import Fraction, Positive, Section


@dataclass(frozen=True)
class TrainSettings:
    """How a detector is trained. Durations that stretch with the budget are fractions of `iterations`."""

    iterations: int
    batch_size: int  # images per step over all processes
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not on normalisation layers
    schedule: str = "step"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)  # Detectron2's 60k and 80k of 90k
    gamma: float = 0.1
    warmup: float = 0.05
    warmup_factor: float = 1e-3
    clip_norm: float | None = None  # bound of the gradient's L2 norm over all parameters
    seed: int = 0
    precision: str | Precision = "auto"  # one of training.device.PRECISIONS, or what one was settled to
    flip: bool = False
    group_by_aspect: bool = False
    num_workers: int = 0
    checkpoint_every: int = 200  # iterations
    report_every: int = 20


# a section for each data set, of which one is given
_SECTIONS: dict[str, Any] = {
    name: (found.options | None, Field(None, description=found.meaning)) for name, found in DATASETS.items()
}


class DetectorData(create_model("DataSets", __base__=Section, **_SECTIONS)):  # type: ignore[misc]  # no static base
    """Exactly one of the data sets.

    `allow_shared`: go on although images of the test split are in training too; the result and the report say how many.
    `skip_broken`: go on without images that are absent or cannot be read, or whose VOC annotations are or cannot be;
    the result and the report name them.
    """

    allow_shared: bool = False
    """Go on although test images are among the training images; the report says how many."""
    skip_broken: bool = False
    """Go on without images or annotations that cannot be read; the report names them."""

    @model_validator(mode="after")
    def _one(self) -> "DetectorData":
        given = [name for name in DATASETS if getattr(self, name) is not None]
        if len(given) != 1:
            *others, last = (f"`{name}`" for name in DATASETS)
            raise Refusal(f"give exactly one of {', '.join(others)} and {last}")
        if self.skip_broken and DATASETS[given[0]].generated:
            raise Refusal(f"skip_broken: true has no effect on `{given[0]}`, which are generated; leave it out")
        return self

    @property
    def given(self) -> tuple[str, Section]:
        """The data set's name in DATASETS and its options."""
        return next((name, section) for name in DATASETS if (section := getattr(self, name)) is not None)

    @property
    def title(self) -> str:
        """What a report calls it."""
        name, options = self.given
        return DATASETS[name].title(options)


class DetectorTraining(Section):
    """The detection budget, the same for every route; durations are fractions of `iterations`."""

    iterations: Positive
    """Training steps of a detector."""
    batch_size: Positive
    """Images per step, over all processes."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate of a step of `batch_size` images, after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty on the weights (factor of the gradient term); normalisation layers have none."""
    schedule: Literal["step", "cosine"] = "step"
    """Course of the learning rate: down by `gamma` at `milestones`, or along a cosine to 0."""
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    """Where the rate is multiplied by `gamma` (schedule `step`), as fractions of the iterations, ascending."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the iterations in which the learning rate rises from a thousandth of `lr`."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient over all parameters, which is cut to it; null: no limit."""
    flip: bool = False
    """Mirror training images left to right at random."""
    group_by_aspect: bool = False
    """Make batches of images that are all wide or all tall, which saves padding."""
