"""Training regimes as data: what a pruned network starts from and how long it trains.

Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (arXiv 1810.05270), section 3.
"""

from dataclasses import dataclass
from typing import Literal

from pruning.targets import scratch_b_epochs


@dataclass(frozen=True)
class Regime:
    """`init`: `inherited` weights of the parent, or `random` ones. `budget`: the epochs of its own settings, the
    dense network's epochs (E), or as many as cost what the dense network's training cost (B).
    """

    init: Literal["inherited", "random"]
    budget: Literal["own", "same_epochs", "same_compute"]


REGIMES: dict[str, Regime] = {
    "base": Regime("random", "own"),
    "fine_tune": Regime("inherited", "own"),
    "scratch_e": Regime("random", "same_epochs"),
    "scratch_b": Regime("random", "same_compute"),
}


def get_regime(name: str) -> Regime:
    """The regime of this name; ValueError lists the known ones."""
    if name not in REGIMES:
        raise ValueError(f"unknown regime {name!r}; known: {', '.join(REGIMES)}")
    return REGIMES[name]


def budget_epochs(regime: Regime, epochs: int, *, dense_macs: int, pruned_macs: int, cap: float | None = None) -> int:
    """Epochs of a regime whose settings say `epochs`; `cap` limits the same-compute budget to cap * epochs."""
    if regime.budget == "same_compute":
        return scratch_b_epochs(epochs, dense_macs, pruned_macs, cap=cap)
    return epochs
