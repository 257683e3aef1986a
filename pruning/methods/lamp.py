"""Layer-adaptive magnitude pruning: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021
(arXiv 2010.07611), section 2.

The score of a weight is its square over the sum of the squares of the weights of its layer that are not smaller;
the lowest scores of the whole network go. So the layers' shares follow from the weights. The largest
weight of a layer has score 1 and stays, and within a layer the order is that of |w|.

The paper prunes all weights but biases; linear layers stay dense here unless the option `linear` says otherwise, as in
`magnitude`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.select import count_left
from pruning.select_weights import conv_weights, keep_largest, shuffled


@dataclass(frozen=True)
class LampOptions(MethodOptions):
    """`linear`: linear layers lose weights too. `shuffle`: of each layer as many random weights stay instead."""

    linear: bool = False
    shuffle: bool = False


def score(weight: Tensor) -> Tensor:
    """The score of each weight, in (0, 1], shaped like `weight`; 0 where the weight is 0."""
    squares = weight.double().square().flatten()
    # falling and stable: of equal weights the earlier counts as the larger one
    falling, order = squares.sort(descending=True, stable=True)
    scores = torch.empty_like(squares)
    scores[order] = falling / falling.cumsum(0).clamp(min=torch.finfo(falling.dtype).tiny)
    return scores.view_as(weight)


def prune(model: nn.Module, request: Request[LampOptions]) -> Choice:
    """Masks over the convolution weights of `model`; `ratio` is the fraction of weights removed."""
    if request.selection.layers:
        raise Refusal("lamp: the layers' shares follow from the weights; leave out `layers`")
    weights = conv_weights(model, request.selection, linear=request.options.linear)
    scores = request.once("scores", lambda: {name: score(weight) for name, weight in weights.items()})
    total = sum(each.numel() for each in scores.values())
    masks = keep_largest(scores, count_left(total, request.selection.stage_ratios()[0]))
    return Choice(masks=shuffled(masks, request.seed) if request.options.shuffle else masks)


METHOD = Method(
    prune=prune,
    options=LampOptions,
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    own_level=lambda options: "global",
)
