"""The ratio at which a pruned network costs a wanted share of the dense one, found by bisection.

Scores do not depend on the ratio, and a method's calibration runs once for all ratios that are tried (`Request.once`),
or not at all where the counts follow from the selection alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from pruning.cost import LayerCosts, masked_params
from pruning.errors import Refusal
from pruning.methods import Choice, MethodOptions, Request, get_method
from pruning.select import Quantity

_CLOSE = 0.001  # of the dense network's cost; the search ends there
_FAR = 0.05  # likewise: what whole channels do not explain
_HALVINGS = 24  # steps of single channels are passed long before
_WORDS = {"macs": "multiply-adds", "params": "parameters"}


class CostLeft:
    """The share of the `dense` network's cost that a choice leaves; nothing is counted before it is asked.

    `cut` carries out the channels of a choice: the smaller network, whose layers have the dense one's names. `example`:
    one input of the dense network (1, C, H, W).
    """

    def __init__(self, dense: nn.Module, example: Tensor, cut: Callable[[Choice], nn.Module]):
        self._dense, self._example, self._cut = dense, example, cut

    @cached_property
    def _costs(self) -> LayerCosts:
        return LayerCosts(self._dense, self._example)

    def __call__(self, choice: Choice, quantity: Quantity) -> float:
        small, masks = self._cut(choice), choice.masks
        if quantity == "params":
            return masked_params(small, masks) / masked_params(self._dense, {})
        return self._costs.macs(small, masks) / self._costs.macs(self._dense, {})


@dataclass(frozen=True)
class Reached:
    """The share of the dense network's `quantity` that was asked for, the one that is left, and the ratio of it."""

    quantity: Quantity
    asked: float
    left: float
    ratio: float

    def check(self, method: str) -> None:
        """ValueError where it is far from what was asked."""
        if abs(self.left - self.asked) <= _FAR:
            return
        raise Refusal(
            f"{method} comes no nearer to target_{self.quantity}={self.asked:g} than {self.left:.3f} of the dense"
            f" network's {_WORDS[self.quantity]}, at ratio {self.ratio:.3f}; choose another target, scope 'all' or"
            " fewer layers in `skip`, or allow it with prune.allow_partial=true (prune-transfer prune: --allow-partial)"
        )


def at_target(
    model: nn.Module, method: str, request: Request[MethodOptions], left: CostLeft
) -> tuple[Request[MethodOptions], Reached | None]:
    """The request with the ratio whose choice comes nearest to the selection's target; None where there is no target.

    ValueError for a method that takes its amount from elsewhere, and for a request that it cannot meet at any ratio.
    """
    selection, chosen = request.selection, get_method(method)
    if selection.cost_target is None:
        return request, None
    check_target(method, request.options)
    quantity, asked = selection.cost_target
    # What is chosen costs as much as any other choice of the same counts; a plan has nothing to look at.
    sketched = request.blank or chosen.fixes_widths(selection)
    choose = chosen.sketch if sketched else chosen.prune
    # of masks that training left any ratio is too late: the one that it was asked by is found as it was then
    options = replace(request.options, masks=None) if chosen.removes_in_training else request.options  # type: ignore[call-arg]
    known: dict[object, float] = {}

    def left_at(ratio: float) -> float:
        choice = choose(model, replace(request, selection=selection.at(ratio), options=options))
        counts = _counts(choice)
        if counts not in known:
            known[counts] = left(choice, quantity)
        return known[counts]

    ratio, share = search(left_at, asked)
    return replace(request, selection=selection.at(ratio)), Reached(quantity, asked, share, ratio)


def check_target(method: str, options: MethodOptions) -> None:
    """ValueError for a method that does not take its amount from the selection, as it must to meet a target."""
    amount = get_method(method).sets_amount(options)
    if amount != "selection":
        says = "its option `budget`" if amount == "options" else "what training brings to zero"
        raise Refusal(f"{method}: {says} decides how much is removed, so target_macs and target_params do not apply")


def search(left_at: Callable[[float], float], asked: float) -> tuple[float, float]:
    """The ratio nearest to the `asked` share and the share that it leaves; `left_at` must not rise with the ratio.

    A ratio that `left_at` refuses is too high. ValueError where it refuses all.
    """
    low, high = 0.0, 1.0
    best, refused = (0.0, left_at(0.0)), None
    for _ in range(_HALVINGS):
        if abs(best[1] - asked) <= _CLOSE:
            break
        ratio = (low + high) / 2
        try:
            share = left_at(ratio)
        except Refusal as error:
            refused, high = error, ratio
            continue
        low, high = (ratio, high) if share > asked else (low, ratio)
        if abs(share - asked) < abs(best[1] - asked):
            best = ratio, share
    if best[0] == 0.0 and refused is not None:
        raise refused
    return best


def _counts(choice: Choice) -> object:
    """What the cost of a choice follows from: not which channels or weights stay, but how many of each layer."""
    tables = (choice.keep, choice.select, choice.scatter)
    kept = tuple(tuple(sorted((name, len(index)) for name, index in table.items())) for table in tables)
    masks = tuple(sorted((name, int(mask.sum())) for name, mask in choice.masks.items()))
    return kept, choice.drop, masks
