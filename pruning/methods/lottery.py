"""Lottery tickets: Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019 (1803.03635), section 2; rewinding to an
early iteration: Frankle et al., Stabilizing the Lottery Ticket Hypothesis (1903.01611).

Train, remove a fraction of the *remaining* weights, put everything else back to what it was at the start (or at
iteration k), repeat. This method is the removal of one round; `rewind` ends the round; the training between
rounds is the caller's. With `unit` filters a round is L1 filter pruning of the network as it is now, and
`PruningPlan.then` joins the rounds. The control trains the same masks from other random weights
(`masked_training.reinitialise_surviving`).

Deviation: the paper prunes layer by layer on small networks and with half the rate in the output layer; here, as in the
released code of Liu et al., ICLR 2019, one threshold goes over all convolution weights and linear layers stay dense,
unless `linear` includes them in it (LeNet-300-100 has nothing else).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.methods import l1_filter
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.select import count_left
from pruning.select_weights import conv_weights, keep_above, keep_largest

_CHANCE = 1e-3


@dataclass(frozen=True)
class LotteryOptions(MethodOptions):
    """`unit`: tickets of single weights or of filters. `masks`: what the rounds before left (weights only); none in the
    first round, which empty ones say outright: zeros are weights like others then. `linear`: linear layers lose weights
    too. `exact` False: the released rule, which removes one weight more than asked in each round.
    """

    unit: Literal["weights", "filters"] = "weights"
    masks: Masks | None = None
    linear: bool = False
    exact: bool = True

    def __post_init__(self) -> None:
        if self.unit not in ("weights", "filters"):
            raise Refusal(f"lottery: unit {self.unit!r} is unknown; choices: weights, filters")
        if self.unit == "filters" and (self.masks or self.linear or not self.exact):
            raise Refusal(
                "lottery: filters take neither masks, linear layers nor the released rule; prune the network of before"
            )


def rewind(model: nn.Module, original: Mapping[str, Tensor], masks: Masks) -> None:
    """Make `model` the ticket, in place: the whole `original` state (BatchNorm's statistics too), then the masks.

    `original`: the state of the dense network at the start or at iteration k; every entry must be there.
    """
    model.load_state_dict(original)
    masks.apply(model)


def prune(model: nn.Module, request: Request[LotteryOptions]) -> Choice:
    """One round: `ratio` is the fraction removed of the convolution weights (or filters) that are left."""
    options = request.options
    if options.unit == "filters":
        return l1_filter.METHOD.prune(model, request)
    if request.selection.layers:
        raise Refusal("lottery: one threshold over the network; leave out `layers`")
    weights = conv_weights(model, request.selection, linear=options.linear)
    before = _masks_before(weights, options.masks)
    # a layer that lost everything stays so; `keep_largest` would give each layer its best weight back
    alive = {name: mask for name, mask in before.items() if bool(mask.any())}
    # a removed weight ranks below every other: magnitudes are not negative
    scores = {name: weights[name].abs().masked_fill(~mask, -1) for name, mask in alive.items()}
    left, ratio = before.kept(), request.selection.stage_ratios()[0]
    # The ratio is of what is left, so the counts are: how many stay of all (removed ones never do), or the rank among
    # all up to which weights go, those that went before included.
    if options.exact:
        chosen = keep_largest(scores, count_left(left, ratio))
    else:
        gone = sum(mask.numel() for mask in alive.values()) - left
        chosen = keep_above(scores, gone + int(left * ratio))
    return Choice(masks=Masks({**before, **chosen}), before=before)


def _masks_before(weights: Mapping[str, Tensor], masks: Masks | None) -> Masks:
    """The masks of the round before, on the weights' devices; ValueError when they are not the network's."""
    if masks is None:
        zeros = sum(int((weight == 0).sum()) for weight in weights.values())
        # a normal draw of float32 is exactly zero now and then; masks that someone forgot leave far more
        if zeros > _CHANCE * sum(weight.numel() for weight in weights.values()):
            raise Refusal(
                f"lottery: {zeros} weights are zero, so this is not a first round;"
                " give the masks of the round before (`masks`), they are not read off zeros"
            )
    if not masks:
        return Masks({name: weight.new_ones(weight.shape) for name, weight in weights.items()})
    if masks.keys() != weights.keys():
        odd = ", ".join(sorted(masks.keys() ^ weights.keys()))
        raise Refusal(f"lottery: the masks of the round before cover other layers than this round: {odd}")
    beside = {name: masks[name].to(weight.device) for name, weight in weights.items()}
    for name, weight in weights.items():
        if beside[name].shape != weight.shape:
            raise Refusal(f"lottery: the mask of {name} has shape {tuple(beside[name].shape)}, not {weight.shape}")
        if bool(weight[~beside[name]].any()):
            raise Refusal(f"lottery: removed weights of {name} are not zero; hold the masks while training")
    return Masks(beside)


METHOD = Method(
    prune=prune,
    options=LotteryOptions,
    predefined=False,
    unstructured=lambda options: options.unit == "weights",
    linear=lambda options: options.linear,
    continues_masks=True,
    own_level=lambda options: "global" if options.unit == "weights" else None,
)
