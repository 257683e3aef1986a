"""Magnitude pruning of single weights: Han et al., Learning both Weights and Connections, NIPS 2015 (1506.02626).

The convolution weights of smallest |w| go, by one threshold over the whole network (stem and 1x1 convolutions
included) or by one in each layer. Linear layers stay dense and there is no fine-tuning between steps, as in
Liu et al., ICLR 2019, section 4.3 (the paper thresholds each layer by its standard deviation and prunes linear
layers too, which the option `linear` does). Each layer keeps at least its largest weight.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from pruning.errors import Refusal
from pruning.masks import Masks
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.select import Selection, count_left
from pruning.select_weights import conv_weights, keep_above, keep_largest, keep_per_layer, shuffled


@dataclass(frozen=True)
class MagnitudeOptions(MethodOptions):
    """`level`: one threshold over the network, or the same share of every layer (then `layers` of the selection may
    give ratios by name). `linear`: linear layers lose weights too. `exact` False: the released rule of the study,
    which removes the asked int(n * ratio) weights and one more, ties at the cut included. `shuffle`: of each layer as
    many random weights stay instead.
    """

    level: Literal["global", "layer"] = "global"
    linear: bool = False
    exact: bool = True
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.level not in ("global", "layer"):
            raise Refusal(f"magnitude: level {self.level!r} is unknown; choices: global, layer")
        if self.level == "layer" and not self.exact:
            raise Refusal("magnitude: the released rule (`exact: false`) has one global threshold")


def prune(model: nn.Module, request: Request[MagnitudeOptions]) -> Choice:
    """Masks over the convolution weights of `model`; `ratio` is the fraction of weights removed."""
    masks = _smallest_removed(model, request)
    return Choice(masks=shuffled(masks, request.seed) if request.options.shuffle else masks)


def _smallest_removed(model: nn.Module, request: Request[MagnitudeOptions]) -> Masks:
    options = request.options
    selection: Selection = request.selection
    scores = {name: weight.abs() for name, weight in conv_weights(model, selection, linear=options.linear).items()}
    if options.level == "layer":
        return keep_per_layer(scores, selection)
    if selection.layers:
        raise Refusal("magnitude: ratios by layer need the option level 'layer'")
    total, ratio = sum(score.numel() for score in scores.values()), selection.stage_ratios()[0]
    if not options.exact:
        return keep_above(scores, int(total * ratio))
    return keep_largest(scores, count_left(total, ratio))


METHOD = Method(
    prune=prune,
    options=MagnitudeOptions,
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    own_level=lambda options: options.level,
)
