"""The same fraction of the weights of every convolution: the control for unstructured methods.

Liu et al., ICLR 2019, section 5, compare designs guided by pruning with it. Which weights go does not matter to a
network that is trained from scratch, so by default they are drawn at random; the smallest ones (as
`magnitude` with level `layer`) make the control fair for one that is fine-tuned. Each layer draws from the seed and
its own name, so a choice does not depend on what else is pruned.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from pruning.errors import Refusal
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.select_weights import conv_weights, keep_per_layer, random_scores


@dataclass(frozen=True)
class UniformWeightsOptions(MethodOptions):
    """`remove`: random weights, or those of smallest magnitude."""

    remove: Literal["random", "smallest"] = "random"

    def __post_init__(self) -> None:
        if self.remove not in ("random", "smallest"):
            raise Refusal(f"uniform_weights: remove {self.remove!r} is unknown; choices: random, smallest")


def prune(model: nn.Module, request: Request[UniformWeightsOptions]) -> Choice:
    """Masks over the convolution weights of `model`; `ratio` is the fraction of weights removed."""
    if request.selection.layers:
        raise Refusal("uniform_weights: one ratio for every layer; leave out `layers`")
    weights = conv_weights(model, request.selection)
    if request.options.remove == "smallest":
        scores = {name: weight.abs() for name, weight in weights.items()}
    else:
        scores = {name: random_scores(name, weight, request.seed) for name, weight in weights.items()}
    return Choice(masks=keep_per_layer(scores, request.selection))


METHOD = Method(
    prune=prune,
    options=UniformWeightsOptions,
    predefined=False,
    unstructured=lambda options: True,
    own_level=lambda options: "layer",
)
