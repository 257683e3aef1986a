"""Learning-rate schedules: pure functions of progress in [0, 1), so that a longer budget stretches them."""

from collections.abc import Sequence
from dataclasses import dataclass

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

from pruning.errors import Refusal

SCHEDULES = ("step", "cosine", "constant")
_PARTS = 1_000_000  # fvcore takes milestones as counts of updates


def lr_schedule(
    name: str, *, milestones: Sequence[float] = (), gamma: float = 0.1, warmup: float = 0.0, warmup_factor: float = 1e-3
) -> ParamScheduler:
    """Multiplier of the base learning rate.

    `milestones`: fractions of the schedule at which the rate is multiplied by `gamma` (`step` only). `warmup`: the
    fraction at the start in which it rises linearly from `warmup_factor` to what the schedule says at the end of it.
    """
    if not 0 <= warmup < 1:
        raise Refusal(f"warmup={warmup} is a fraction of the schedule, 0 <= warmup < 1")
    main = _main(name, milestones, gamma)
    if warmup == 0:
        return main
    rise = LinearParamScheduler(warmup_factor * main(0.0), main(warmup))
    return CompositeParamScheduler([rise, main], lengths=[warmup, 1 - warmup], interval_scaling=["rescaled", "fixed"])


@dataclass(frozen=True)
class OneCycle(ParamScheduler):
    """Up to the base rate in the fraction `rise` of the schedule and down again, along half a cosine each.

    `first` and `last`: the multipliers it begins and ends with. The values are those of PyTorch's OneCycleLR, after
    Smith & Topin, Super-Convergence (arXiv 1708.07120), whose momentum runs against the rate; here it stays as it is.
    """

    rise: float
    first: float
    last: float

    def __call__(self, where: float) -> float:
        if where < self.rise:
            return CosineParamScheduler(self.first, 1)(where / self.rise)
        return CosineParamScheduler(1, self.last)((where - self.rise) / (1 - self.rise))


@dataclass(frozen=True)
class LastPart(ParamScheduler):
    """What `whole` says from progress `start` on, once more."""

    whole: ParamScheduler
    start: float

    def __call__(self, where: float) -> float:
        return self.whole(self.start + (1 - self.start) * where)


def _main(name: str, milestones: Sequence[float], gamma: float) -> ParamScheduler:
    if name == "cosine":
        return CosineParamScheduler(1, 0)
    if name == "constant":
        return ConstantParamScheduler(1)
    if name != "step":
        raise Refusal(f"schedule={name!r} is not one of {', '.join(SCHEDULES)}")
    if list(milestones) != sorted(milestones) or any(not 0 < m < 1 for m in milestones):
        raise Refusal(f"milestones {list(milestones)} must ascend between 0 and 1: they are fractions of the schedule")
    values = [gamma**k for k in range(len(milestones) + 1)]
    return MultiStepParamScheduler(values, num_updates=_PARTS, milestones=[round(_PARTS * m) for m in milestones])
