"""Widths that meet a budget of params or multiply-adds as nearly as whole channels allow."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from torch import Tensor, nn

from pruning.cost import LayerCosts, count_params
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.graph.norm_channels import NormChannels, keep_and_select
from pruning.plan import PruningPlan
from pruning.select import Quantity
from pruning.surgery import apply

Widths = Mapping[str, int]
"""Kept channels by the name of the group, or of the BatchNorm behind which inputs are selected."""

K = TypeVar("K", bound=Hashable)

# halvings of the scale's interval; the counts stop changing long before
_HALVINGS = 40


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost. `amount` up to 1: share of the dense network's cost; above 1: the cost itself."""

    quantity: Quantity
    amount: float

    def target(self, dense: int) -> int:
        """The budget as a number, for a dense network that costs `dense`; ValueError when it exceeds that."""
        target = round(self.amount * dense) if self.amount <= 1 else round(self.amount)
        if target > dense:
            raise Refusal(f"a budget of {target:,} {self.quantity} is more than the dense network's {dense:,}")
        return target


def read_budget(budget: Mapping[str, float], *, owner: str) -> Budget:
    """The one entry of {"macs": amount} or {"params": amount}; ValueError names the `owner` of the option."""
    if len(budget) != 1 or not set(budget) <= set(get_args(Quantity)):
        raise Refusal(f"{owner}: budget takes one of {', '.join(get_args(Quantity))}, not {dict(budget)}")
    quantity, amount = next(iter(budget.items()))
    if not amount > 0:
        raise Refusal(f"{owner}: a budget of {amount} {quantity} is not positive")
    return Budget("macs" if quantity == "macs" else "params", amount)


def cost_of_widths(
    quantity: Quantity,
    model: nn.Module,
    groups: Sequence[Group],
    example: Tensor | None,
    places: Sequence[NormChannels] = (),
) -> Callable[[Widths], int]:
    """The cost of `model` as a function of widths by name, counted on the network that has them.

    Names are those of `groups`, and of `places` whose readers select their inputs. `example`: one input
    (1, C, H, W), needed for MACs.
    """
    if quantity == "macs" and example is None:
        raise Refusal("a budget of MACs needs an example input; a budget of params does not")
    dense = {g.name: g.width for g in groups}
    selecting = [place for place in places if place.readers]
    macs = LayerCosts(model, example).macs if quantity == "macs" and example is not None else None

    # Counted on the cut network: a width pays in every layer that reads it as well, so the cost of a set of widths is
    # no sum over widths.
    def cost(widths: Widths) -> int:
        kept = {name: tuple(range(width)) for name, width in widths.items()}  # which ones does not matter for the cost
        _, select = keep_and_select(selecting, kept, model)
        keep = {name: kept[name] for name in kept.keys() & dense.keys()}
        plan = PruningPlan(type(model).__name__, {}, keep, {name: dense[name] for name in keep}, select)
        small = apply(model, plan, groups)
        return count_params(small) if macs is None else macs(small, {})

    return cost


def fit(
    counts_at: Callable[[float], Mapping[K, int]],
    cost: Callable[[Mapping[K, int]], int],
    target: int,
    low: float,
    high: float,
) -> dict[K, int]:
    """The counts nearest to the `target` cost on the way from `counts_at(low)` to `counts_at(high)`, by bisection.

    Neither `counts_at` nor `cost` may fall as its argument grows. Of two equally near counts the cheaper are taken.
    Raises ValueError for a target that the two ends do not bracket.
    """
    # `below` costs at most the target and `above` at least that, from here to the end. Counts are whole numbers, so the
    # cost is a staircase over the scale; the two end on either side of the step that the target falls into.
    below, above = dict(counts_at(low)), dict(counts_at(high))
    under, over = cost(below), cost(above)
    if not under <= target <= over:
        raise Refusal(f"a budget of {target:,} cannot be met: between {under:,} and {over:,} is possible")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        counts = dict(counts_at(middle))
        if counts == below:  # as most of the late halvings do: no network is cut for them
            low = middle
        elif counts == above:
            high = middle
        elif (costs := cost(counts)) <= target:
            low, below, under = middle, counts, costs
        else:
            high, above, over = middle, counts, costs
    return below if target - under <= over - target else above
