"""Training regimes as data: what a pruned network starts from, how long it trains, at which rates.

Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (arXiv 1810.05270), section 3, and four regimes that
train a pruned network for as long as fine-tuning does, at the rates of the dense network's training:

lr_rewind, weight_rewind: Renda et al., Comparing Rewinding and Fine-tuning, ICLR 2020 (arXiv 2003.02389). The last t
epochs of the dense schedule once more; the weights stay as pruning left them, or go back to those of the dense network
where these epochs began. As there, t is what the user chooses. The order of the images is that of a new training.

cyclic: Le & Hua, Network Pruning That Matters, ICLR 2021 (arXiv 2105.03193), section on Cyclic Learning Rate
Restarting. As their released code has it (lehduong/NPTM): PyTorch's OneCycleLR, a tenth of the epochs up to the highest
rate of the dense training from a hundredth of it, then down to a ten-thousandth. Their scaled restarting (SLR), the
dense schedule compressed, is what fine_tune does where its settings change no rate.

one_cycle: the same curve with the proportions that PyTorch has for Smith & Topin (arXiv 1708.07120): 0.3 of the epochs
up from 1/25, down to 1/250,000. In both, momentum stays as the settings have it, where OneCycleLR moves it as well.
"""

from dataclasses import dataclass
from typing import Final, Literal

from fvcore.common.param_scheduler import ParamScheduler

from pruning.errors import Refusal
from pruning.targets import scratch_b_epochs
from training.schedule import LastPart, OneCycle


@dataclass(frozen=True)
class Regime:
    """`init`: `inherited` weights of the parent, `random` ones, or those of the dense network: the `original` ones, at
    its start or at the iteration it was asked to remember (winning tickets), or those that it is `rewound` to, where
    the last part of its training begins; `initial` ones are the parent's, which was pruned before any training.
    `section`: whose settings it trains by, those of the dense network (`train`) or changes to them. `same_compute`: as
    many epochs as cost what the dense network's training cost (B), not those of its settings (E). `plus_fine_tuning`:
    with the fine-tuning epochs on top, which a pruned network that inherits its weights has had as well. `last_part`:
    the rate follows the last part of the dense schedule, as long as the training is; `cycle`: it follows this curve, up
    to the dense network's rate.
    """

    init: Literal["inherited", "random", "original", "rewound", "initial"]
    section: Literal["train", "fine_tune", "scratch"] = "scratch"
    same_compute: bool = False
    plus_fine_tuning: bool = False
    last_part: bool = False
    cycle: OneCycle | None = None

    @property
    def at_dense_rates(self) -> bool:
        """Are its learning rates those of the dense network's training, whatever its own settings say?"""
        return self.last_part or self.cycle is not None

    def schedule(self, own: ParamScheduler, start: int, length: int) -> ParamScheduler:
        """The course of the rate where the settings say `own`.

        `start`, `length`: of the last part of the dense training, in epochs or iterations.
        """
        if self.cycle is not None:
            return self.cycle
        return LastPart(own, start / (start + length)) if self.last_part else own


BASE: Final = "base"  # of the dense network; every other regime is of a pruned one
FINE_TUNE: Final = "fine_tune"
REGIMES: dict[str, Regime] = {
    BASE: Regime("random", "train"),
    FINE_TUNE: Regime("inherited", "fine_tune"),
    "lr_rewind": Regime("inherited", "fine_tune", last_part=True),
    "weight_rewind": Regime("rewound", "fine_tune", last_part=True),
    "cyclic": Regime("inherited", "fine_tune", cycle=OneCycle(rise=0.1, first=1 / 100, last=1 / 10_000)),
    "one_cycle": Regime("inherited", "fine_tune", cycle=OneCycle(rise=0.3, first=1 / 25, last=1 / 250_000)),
    "scratch_e": Regime("random"),
    "scratch_b": Regime("random", same_compute=True),
    "scratch_b_fair": Regime("random", same_compute=True, plus_fine_tuning=True),
    "ticket": Regime("original"),
    "from_init": Regime("initial"),
}
RETRAINING = tuple(name for name, regime in REGIMES.items() if regime.section == "fine_tune")
"""The regimes of networks that pruning left with trained weights: what the step fine_tune may stand for."""
BY_STEP = tuple(name for name, regime in REGIMES.items() if not regime.at_dense_rates)
"""The regimes that are steps of their own; the others stand for fine_tune."""


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
