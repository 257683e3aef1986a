"""Training regimes as data: what a pruned network starts from and how long it trains.

Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (arXiv 1810.05270), section 3.
"""

from dataclasses import dataclass
from typing import Literal

from pruning.errors import Refusal
from pruning.targets import scratch_b_epochs


@dataclass(frozen=True)
class Regime:
    """`init`: `inherited` weights of the parent, `random` ones, or the `original` ones of the dense network: at its
    start, or at the iteration it was asked to remember (winning tickets). `budget`: the epochs of its own settings, the
    dense network's epochs (E), or as many as cost what the dense network's training cost (B). `plus_fine_tuning`:
    with the fine-tuning epochs on top, which a pruned network that inherits its weights has had as well.
    """

    init: Literal["inherited", "random", "original"]
    budget: Literal["own", "same_epochs", "same_compute"]
    plus_fine_tuning: bool = False


REGIMES: dict[str, Regime] = {
    "base": Regime("random", "own"),
    "fine_tune": Regime("inherited", "own"),
    "scratch_e": Regime("random", "same_epochs"),
    "scratch_b": Regime("random", "same_compute"),
    "scratch_b_fair": Regime("random", "same_compute", plus_fine_tuning=True),
    "ticket": Regime("original", "same_epochs"),
}


def get_regime(name: str) -> Regime:
    """The regime of this name; ValueError lists the known ones."""
    if name not in REGIMES:
        raise Refusal(f"unknown regime {name!r}; known: {', '.join(REGIMES)}")
    return REGIMES[name]


def budget_epochs(
    regime: Regime,
    epochs: int,
    *,
    dense_macs: int,
    pruned_macs: int,
    cap: float | None = None,
    fine_tune_epochs: int = 0,
) -> int:
    """Epochs of a regime whose settings say `epochs`; `cap` limits the same-compute budget to cap * epochs."""
    if regime.budget == "same_compute":
        epochs = scratch_b_epochs(epochs, dense_macs, pruned_macs, cap=cap)
    return epochs + (fine_tune_epochs if regime.plus_fine_tuning else 0)
