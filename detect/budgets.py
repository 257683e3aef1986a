"""How long a detector trains: what the routes of a study have in common. To add a rule: a line in BUDGETS."""

from collections.abc import Callable
from dataclasses import dataclass

from pruning.errors import Refusal


@dataclass(frozen=True)
class Length:
    """`iterations` of `batch_size` images that a training's settings say; `whole`: those of a route, if it is split."""

    iterations: int
    batch_size: int
    whole: int


@dataclass(frozen=True)
class Costs:
    """Training MACs, each counted only where a rule asks for it.

    `macs`, `dense_macs`: of one image, with the detector's own network and with the dense one. `before`: of all stages
    before. `dense_classification`: of the dense classifier. `spare`: what the classifier before cost less than it may.
    `teacher`: of one image that the teacher of another route's detector looks at; 0 where that is not distilled.
    """

    macs: Callable[[], int]
    dense_macs: Callable[[], int]
    before: Callable[[], int]
    dense_classification: Callable[[], int]
    spare: Callable[[], int]
    teacher: Callable[[], int]


def stretched(length: Length, costs: Costs) -> int:
    """Scratch-B for the detector itself: what the settings' iterations cost the dense detector."""
    return length.iterations * costs.dense_macs() // costs.macs()


def remaining(length: Length, costs: Costs) -> int:
    """What the stages before left of the unpruned route's cost; ValueError if they have used it up."""
    total = length.whole * length.batch_size * costs.dense_macs() + costs.dense_classification()
    spent = costs.before()
    left = (total - spent) // (costs.macs() * length.batch_size)
    if left < 1:
        raise Refusal(
            f"detector.budget same_total: the stages before cost {spent:.3g} of {total:.3g} training MACs, which leaves"
            " no iteration for the detector; lower classifier.train.epochs or raise detector.train.iterations"
        )
    return left


def with_spare(rule: Callable[[Length, Costs], int] | None, length: Length, costs: Costs) -> int:
    """The iterations of a rule, and those that `costs.spare` pays for; a rule that hands out all MACs has done so.

    Without a rule the teacher of the other route comes on top of its iterations; a rule has counted it in.
    """
    iterations = length.iterations if rule is None else rule(length, costs)
    if rule is remaining:
        return iterations
    taught = length.iterations * length.batch_size * costs.teacher() if rule is None else 0
    return iterations + max(costs.spare() + taught, 0) // (costs.macs() * length.batch_size)


DEFAULT = "same_iterations"
# None: the iterations of the settings, split where pruning happens in between
BUDGETS: dict[str, Callable[[Length, Costs], int] | None] = {
    DEFAULT: None,
    "same_compute": stretched,
    "same_total": remaining,
}
