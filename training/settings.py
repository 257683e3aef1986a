"""What the trainings of classifiers and of detectors are both told."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from training.device import Precision
from training.options import Section


class Optimisation(Section):
    """The keys that mean the same in both trainings."""

    lr: Annotated[float, Field(gt=0)]
    """Learning rate of a step of `batch_size` images, after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty on the weights (factor of the gradient term); in detectors not on those of normalisation layers."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""

    def stated(self) -> dict[str, object]:
        """The settings that are not the default, as JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of a training is told beside its settings.

    `seed` decides the result with them; the rest changes nothing of it beyond floating point. `precision`: one of
    training.device.PRECISIONS, or what one was settled to. `compile`: by torch.compile. `checkpoint_minutes`: between
    checkpoints, 0: one after each step. `report_every`: in steps.
    """

    seed: int = 0
    precision: str | Precision = "auto"
    compile: bool = False
    checkpoint_minutes: float = 10
    report_every: int = 20
