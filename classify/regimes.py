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
    start, or at the iteration it was asked to remember (winning tickets); `initial` ones are the parent's, which was
    pruned before any training. `section`: whose settings it trains by, those of the dense network (`train`) or changes
    to them. `same_compute`: as many epochs as cost what the dense network's training cost (B), not those of its
    settings (E). `plus_fine_tuning`: with the fine-tuning epochs on top, which a pruned network that inherits its
    weights has had as well.
    """

    init: Literal["inherited", "random", "original", "initial"]
    section: Literal["train", "fine_tune", "scratch"] = "scratch"
    same_compute: bool = False
    plus_fine_tuning: bool = False


BASE = "base"  # of the dense network; every other regime is of a pruned one
REGIMES: dict[str, Regime] = {
    BASE: Regime("random", "train"),
    "fine_tune": Regime("inherited", "fine_tune"),
    "scratch_e": Regime("random"),
    "scratch_b": Regime("random", same_compute=True),
    "scratch_b_fair": Regime("random", same_compute=True, plus_fine_tuning=True),
    "ticket": Regime("original"),
    "from_init": Regime("initial"),
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
    if regime.same_compute:
        epochs = scratch_b_epochs(epochs, dense_macs, pruned_macs, cap=cap)
    return epochs + (fine_tune_epochs if regime.plus_fine_tuning else 0)
