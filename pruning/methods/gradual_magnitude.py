"""Gradual magnitude pruning: Zhu & Gupta, To prune, or not to prune, 2017 (arXiv 1710.01878), section 3.

While the network trains, every dt steps the weights of smallest |w| go, until at step t a fraction

    s_t = s_f + (s_i - s_f) (1 - (t - t0) / (n dt))^3        for t in t0, t0 + dt, ..., t0 + n dt

of each layer is gone: many at first, while there is redundance, and fewer and fewer. s_f is the asked ratio, s_i the
option `initial`, t0 and n follow from `begin`, `end` and `every`. After the ramp the training goes on with the masks as
they are. `prune` takes those, so it removes the asked ratio and changes no weight; of a network that no such training
came before it makes the last step of the ramp alone.

As in the paper, weights that are removed are not updated, and each layer loses the same share; by the selection's level
`global` there is one threshold over the network instead, and its `layers` give shares by name. Departures: the released
code keeps the value of a removed weight beside its mask, so that it can come back where the others have shrunk below
it; here it is zero and stays away. The paper names no n for all networks, and 0.75 is ours.
Linear layers stay dense unless the option `linear` includes them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.errors import Refusal
from pruning.masked_training import ChangingMasks
from pruning.masks import Masks
from pruning.methods.method import Choice, Effect, Method, MethodOptions, Request
from pruning.select import count_left
from pruning.select_weights import check_subset, conv_weights, keep_largest, keep_per_layer, magnitudes

_TOLERANCE = 1e-9  # 0.29 * 100 steps are 28.999...


@dataclass(frozen=True)
class GradualMagnitudeOptions(MethodOptions):
    """`begin`, `end`: of the ramp, as fractions of the training. `every`: steps between two removals. `initial`: the
    fraction removed at `begin`. `linear`: linear layers lose weights too. `masks`: what training left.
    """

    begin: float = 0.0
    end: float = 0.75
    every: int = 100
    initial: float = 0.0
    linear: bool = False
    masks: Masks | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1:
            raise Refusal(f"gradual_magnitude: begin {self.begin} and end {self.end} must be 0 <= begin < end <= 1")
        if self.every < 1:
            raise Refusal(f"gradual_magnitude: every={self.every} must be at least 1 step")
        if not 0 <= self.initial < 1:
            raise Refusal(f"gradual_magnitude: initial {self.initial} is outside 0 <= initial < 1")


def removed_at(progress: float, *, final: float, initial: float = 0.0) -> float:
    """The fraction removed after `progress`, 0 to 1, of the ramp (equation 1)."""
    return final + (min(initial, final) - final) * (1 - progress) ** 3


def left_at(
    progress: float, model: nn.Module, request: Request[GradualMagnitudeOptions], left: Mapping[str, Tensor]
) -> Masks:
    """The masks after `progress` of the ramp, of those `left` before; what is gone stays so."""
    selection, options = request.selection, request.options
    scores = magnitudes(conv_weights(model, selection, linear=options.linear), left)

    def ratio_now(final: float) -> float:
        return removed_at(progress, final=final, initial=options.initial)

    ratio = ratio_now(selection.stage_ratios()[0])
    if selection.level == "global":
        chosen = keep_largest(scores, count_left(sum(score.numel() for score in scores.values()), ratio))
    else:
        layers = {name: ratio_now(final) for name, final in (selection.layers or {}).items()}
        chosen = keep_per_layer(scores, replace(selection, ratio=ratio, layers=layers or None))
    check_subset(chosen, left)
    return chosen


class GradualMagnitude(ChangingMasks):
    """Removes weights on a cubic ramp, and holds what is removed."""

    def __init__(self, model: nn.Module, request: Request[GradualMagnitudeOptions]):
        weights = conv_weights(model, request.selection, linear=request.options.linear)
        super().__init__(model, Masks({name: weight.new_ones(weight.shape) for name, weight in weights.items()}))
        left_at(1.0, model, request, {})  # refuses now what the last step would refuse
        self._request = request
        self._begin = self._removals = 0

    def plan_for(self, steps: int, optimizer: Optimizer | None = None) -> None:
        super().plan_for(steps, optimizer)
        options = self._request.options
        self._begin = round(options.begin * steps)
        self._removals = (math.floor(options.end * steps + _TOLERANCE) - self._begin) // options.every
        if self._removals < 1:
            raise Refusal(
                f"gradual_magnitude: a training of {steps} steps has fewer than every={options.every} between"
                f" begin={options.begin} and end={options.end} of it; lower prune.options.every or train longer"
            )

    def at_start(self) -> None:
        super().at_start()
        self._remove()

    def after_step(self, lr: float) -> None:
        super().after_step(lr)
        self._remove()

    def _remove(self) -> None:
        done, late = divmod(self.steps_done - self._begin, self._request.options.every)
        if late == 0 and 0 <= done <= self._removals:
            self.change(left_at(done / self._removals, self._model, self._request, self.masks()))


def training_effect(model: nn.Module, request: Request[GradualMagnitudeOptions]) -> Effect:
    """Removal while the network trains."""
    return GradualMagnitude(model, request)


def prune(model: nn.Module, request: Request[GradualMagnitudeOptions]) -> Choice:
    """Masks over the convolution weights of `model`, those that training left; `ratio` is the fraction removed."""
    return Choice(masks=left_at(1.0, model, request, request.options.masks or {}))


METHOD = Method(
    prune=prune,
    options=GradualMagnitudeOptions,
    training_effect=training_effect,
    effect_reads=("ratio", "level", "skip", "layers", "round_to", "target_macs", "target_params"),
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    continues_masks=True,
)
