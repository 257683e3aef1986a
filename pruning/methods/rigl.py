"""RigL: Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020 (arXiv 1911.11134), section 3.

The network is sparse from the start: each layer keeps a share of its weights, drawn at random. Every dT steps, until
T_end, each layer drops the fraction

    alpha / 2 (1 + cos(pi t / T_end))

of its weights, those of smallest |w|, and grows as many where the loss of the batch has the largest gradient. Grown
weights start at zero and without momentum. As in the paper's Algorithm 1, t = 0 is such a step, and it takes the place
of the optimiser's (for the network that the method acts on; the rest of a detector steps). What was just dropped may
grow at once, and goes on as it was, as in the released code. Between two updates only the weights that are there have
gradients.

Shares of the layers, whose total is the asked ratio: `uniform`, or in proportion to (n_in + n_out) / (n_in n_out)
(`erdos_renyi`), or to (n_in + n_out + kh + kw) / (n_in n_out kh kw) (`erdos_renyi_kernel`). A layer whose share would
be above 1 stays dense, and the others are shared out anew (section 3, (1), and the released code).

`prune` takes the masks that training left; of a network that no such training came before it keeps the largest weights
of each layer. Departures: the first layer is not left dense with `uniform` (`skip` leaves it so); linear layers stay
dense unless the option `linear` includes them; layers whose weights are frozen keep their first masks. `start:
magnitude` keeps the largest weights at first, for networks that were trained before, as a detector's backbone is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.errors import Refusal
from pruning.masked_training import ChangingMasks
from pruning.masks import Masks
from pruning.methods.method import Choice, Effect, Method, MethodOptions, Request
from pruning.select import Selection, count_left, count_to_keep
from pruning.select_weights import check_subset, conv_weights, keep_largest, magnitudes, random_scores, ratio_of

_TOLERANCE = 1e-9  # 0.29 * 100 steps are 28.999...
Shares = Literal["uniform", "erdos_renyi", "erdos_renyi_kernel"]
Start = Literal["random", "magnitude"]


@dataclass(frozen=True)
class RigLOptions(MethodOptions):
    """`shares`: of the layers. `start`: which weights are there at first. `every`: steps between two updates. `alpha`:
    the fraction that the first one drops. `end`: of the updates, as a fraction of the training. `linear`: linear layers
    lose weights too. `masks`: what training left.
    """

    shares: Shares = "erdos_renyi_kernel"
    start: Start = "random"
    every: int = 100
    alpha: float = 0.3
    end: float = 0.75
    linear: bool = False
    masks: Masks | None = None

    def __post_init__(self) -> None:
        if self.shares not in get_args(Shares):
            raise Refusal(f"rigl: shares {self.shares!r} are unknown; choices: {', '.join(get_args(Shares))}")
        if self.start not in get_args(Start):
            raise Refusal(f"rigl: start {self.start!r} is unknown; choices: {', '.join(get_args(Start))}")
        if self.every < 1:
            raise Refusal(f"rigl: every={self.every} must be at least 1 step")
        if not (0 < self.alpha < 1 and 0 < self.end <= 1):
            raise Refusal(f"rigl: alpha {self.alpha} and end {self.end} must be 0 < alpha < 1 and 0 < end <= 1")


def densities(shapes: Mapping[str, torch.Size], ratio: float, *, kernel: bool) -> dict[str, float]:
    """The share of weights that each layer keeps by Erdos-Renyi, of all 1 - `ratio`; `shapes` (out, in, ...)."""
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    sides = {name: shape if kernel else shape[:2] for name, shape in shapes.items()}
    raw = {name: sum(side) / math.prod(side) for name, side in sides.items()}
    dense: set[str] = set()
    while len(dense) < len(sizes):
        rest = [name for name in sizes if name not in dense]
        left = (1 - ratio) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = left / sum(raw[name] * sizes[name] for name in rest)
        above = {name for name in rest if scale * raw[name] > 1}
        if not above:
            return {name: 1.0 if name in dense else scale * raw[name] for name in sizes}
        largest = max(raw[name] for name in above)
        dense |= {name for name in above if raw[name] == largest}
    return dict.fromkeys(sizes, 1.0)


def counts(weights: Mapping[str, Tensor], selection: Selection, shares: Shares) -> dict[str, int]:
    """How many weights each layer keeps, one at least; by Erdos-Renyi their sum is what `ratio` leaves of them all."""
    if shares == "uniform":
        wanted = {name: count_to_keep(w.numel(), ratio_of(name, selection)) for name, w in weights.items()}
        return {name: max(1, count) for name, count in wanted.items()}
    if selection.layers:
        raise Refusal(f"rigl: shares by {shares} follow from the layers' shapes; leave out `layers` or choose uniform")
    ratio = selection.stage_ratios()[0]
    kernel = shares == "erdos_renyi_kernel"
    found = densities({name: weight.shape for name, weight in weights.items()}, ratio, kernel=kernel)
    exact = {name: found[name] * weight.numel() for name, weight in weights.items()}
    kept = {name: max(1, math.floor(count + _TOLERANCE)) for name, count in exact.items()}
    missing = count_left(sum(weight.numel() for weight in weights.values()), ratio) - sum(kept.values())
    # what rounding down left over goes, one each, to the layers that lost most by it
    for name in sorted(kept, key=lambda name: kept[name] - exact[name])[: max(0, missing)]:
        kept[name] += 1
    return kept


def keep_by_count(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> Masks:
    """The highest scores of each layer."""
    return Masks({name: keep_largest({name: score}, counts[name])[name] for name, score in scores.items()})


def drop_and_grow(weight: Tensor, grad: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """The mask after int(fraction * n) of its n weights are exchanged: smallest |w| for largest |gradient|.

    All of one shape. Ties keep, and grow, the lower index.
    """
    kept = int(mask.sum())
    n = int(kept * fraction)
    stays = _largest(weight.abs().masked_fill(~mask, -1), kept - n)
    return stays | _largest(grad.abs().masked_fill(stays, -1), n)


def _largest(scores: Tensor, n: int) -> Tensor:
    """True at the `n` largest of any number of scores, ties to the lower index."""
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[scores.flatten().argsort(descending=True, stable=True)[:n]] = True
    return chosen.view(scores.shape)


class RigL(ChangingMasks):
    """Exchanges weights every few steps, and holds the rest."""

    def __init__(self, model: nn.Module, masks: Masks, options: RigLOptions):
        super().__init__(model, masks)
        self._options = options
        self._end = 0

    def plan_for(self, steps: int, optimizer: Optimizer | None = None) -> None:
        super().plan_for(steps, optimizer)
        self._end = math.floor(self._options.end * steps + _TOLERANCE)
        if self._options.every >= self._end:
            raise Refusal(
                f"rigl: a training of {steps} steps has no update after the first: every={self._options.every} is not"
                f" below end={self._options.end} of it; lower prune.options.every or train longer"
            )

    def after_backward(self) -> None:
        if self.steps_done % self._options.every == 0 and self.steps_done < self._end:
            self._exchange()
        super().after_backward()

    def _exchange(self) -> None:
        weights = {name: self._model.get_parameter(name) for name in self.masks()}
        grads = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
        # float16's scaled gradients overflow now and then, and the optimiser leaves out such a step, too
        if not all(bool(grad.isfinite().all()) for grad in grads.values()):
            return
        fraction = self._options.alpha / 2 * (1 + math.cos(math.pi * self.steps_done / self._end))
        changed = {
            name: drop_and_grow(weights[name].detach(), grad, self.masks()[name], fraction)
            for name, grad in grads.items()
        }
        self.change(Masks({**self.masks(), **changed}))
        for parameter in self._model.parameters():
            parameter.grad = None  # no step of the optimiser, of its momentum neither


def training_effect(model: nn.Module, request: Request[RigLOptions]) -> Effect:
    """Sparse from the start, by masks that change."""
    weights = conv_weights(model, request.selection, linear=request.options.linear)
    if request.options.start == "random":
        scores = {name: random_scores(name, weight, request.seed) for name, weight in weights.items()}
    else:
        scores = magnitudes(weights, {})
    kept = counts(weights, request.selection, request.options.shares)
    return RigL(model, keep_by_count(scores, kept), request.options)


def prune(model: nn.Module, request: Request[RigLOptions]) -> Choice:
    """Masks over the convolution weights of `model`, those that training left; `ratio` is the fraction removed."""
    weights, options = conv_weights(model, request.selection, linear=request.options.linear), request.options
    left: Mapping[str, Tensor] = options.masks or {}
    chosen = keep_by_count(magnitudes(weights, left), counts(weights, request.selection, options.shares))
    check_subset(chosen, left)
    return Choice(masks=chosen)


METHOD = Method(
    prune=prune,
    options=RigLOptions,
    training_effect=training_effect,
    effect_reads=("ratio", "skip", "layers", "round_to", "target_macs", "target_params"),
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    continues_masks=True,
    own_level=lambda options: "layer",
)
