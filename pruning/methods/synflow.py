"""Synaptic flow: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow,
NeurIPS 2020 (arXiv 2006.05467), section 6, algorithm 1.

R is the sum of the outputs of the network with every weight w replaced by |w|, for an input of ones: the sum over all
paths of the product of their |w|. The score of a weight is |w| * dR/d|w|, what the paths through it are of that. A
layer's scores add up to R whatever its width, so no layer is cut off before all are thin. The lowest scores of all
convolutions and linear layers go, in `rounds` (100) of which round k leaves density^(k / rounds) of the weights, each
scored on what the rounds before left. No data is looked at.

Departures. The released code takes the absolute value of all that the network holds, biases and BatchNorm's means
included, and BatchNorm, in evaluation mode, divides by its running deviation. So it is here, but biases and means are
zero, as in the paper's formula: they are so in a fresh BatchNorm, and those of a trained one would break the paths.
Layers that normalise by their own input (group and layer normalisation) are passed over, since R would not change with
their weights' scale. All is computed in float64, since R grows with the depth; counts are exact, and each layer keeps
the weight that scores best. Inside a detector the outputs are the features of all levels. `shuffle` gives the
control of Su et al. (see `select_weights.shuffled`).
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.layers import is_norm
from pruning.masks import Masks
from pruning.methods.method import Choice, Method, MethodOptions, Request
from pruning.modes import evaluation_mode
from pruning.select import count_left
from pruning.select_weights import conv_weights, keep_largest, shuffled


@dataclass(frozen=True)
class SynflowOptions(MethodOptions):
    """`rounds`: of scoring and removing. `linear`: linear layers lose weights too. `shuffle`: of each layer as many
    random weights stay instead.
    """

    rounds: int = 100
    linear: bool = True
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise Refusal(f"synflow: rounds={self.rounds} must be at least 1")


def prune(model: nn.Module, request: Request[SynflowOptions]) -> Choice:
    """Masks over the weights of `model`; `ratio` is the fraction removed."""
    if request.example is None:
        raise Refusal("synflow: the flow goes through the whole network, which needs an example input")
    weights, n_keep = _asked(model, request)
    masks = _in_rounds(model, weights, request.example, n_keep, request.options.rounds)
    return Choice(masks=shuffled(masks, request.seed) if request.options.shuffle else masks)


def outline(model: nn.Module, request: Request[SynflowOptions]) -> Choice:
    """As many weights, of the largest values: the rounds take long."""
    weights, n_keep = _asked(model, request)
    return Choice(masks=keep_largest({name: weight.abs() for name, weight in weights.items()}, n_keep))


def _asked(model: nn.Module, request: Request[SynflowOptions]) -> tuple[dict[str, Tensor], int]:
    """The weights that the method is about, and how many of them stay."""
    if request.selection.layers:
        raise Refusal("synflow: the layers' shares follow from the flow; leave out `layers`")
    weights = conv_weights(model, request.selection, linear=request.options.linear)
    total = sum(weight.numel() for weight in weights.values())
    return weights, count_left(total, request.selection.stage_ratios()[0])


def _in_rounds(model: nn.Module, weights: Mapping[str, Tensor], example: Tensor, n_keep: int, rounds: int) -> Masks:
    network = linearised(model)
    masks = Masks({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()})
    total = sum(mask.numel() for mask in masks.values())
    for k in range(1, rounds + 1):
        masks.apply(network)
        # removed weights score below those that no path runs through any more, and do not come back for them
        scores = {name: score.masked_fill(~masks[name], -1) for name, score in flows(network, weights, example).items()}
        masks = keep_largest(scores, max(n_keep, round(total * (n_keep / total) ** (k / rounds))))
    return masks


def linearised(model: nn.Module) -> nn.Module:
    """A copy in float64 of absolute values, without biases and means: R is linear in each of its weights."""
    network = copy.deepcopy(model).double().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.zero_()
        else:
            tensor.abs_()
    for module in network.modules():
        if is_norm(module) and getattr(module, "running_var", None) is None:
            module.register_forward_hook(lambda layer, inputs, output: inputs[0])
    return network


def flows(network: nn.Module, names: Iterable[str], example: Tensor) -> dict[str, Tensor]:
    """The score of each weight of the named parameters of a `linearised` network, shaped like them.

    `example` (1, C, H, W) gives the shape of the input.
    """
    weights = {name: network.get_parameter(name).requires_grad_(True) for name in names}
    ones = torch.ones_like(example, dtype=torch.float64, device=next(iter(weights.values())).device)
    with evaluation_mode(network), torch.enable_grad():
        found = network(ones)
        outputs = list(found.values()) if isinstance(found, Mapping) else [found]
        flow = torch.stack([output.sum() for output in outputs]).sum()
        gradients = torch.autograd.grad(flow, list(weights.values()), allow_unused=True, materialize_grads=True)
    return {name: weights[name].detach() * gradient for name, gradient in zip(weights, gradients, strict=True)}


METHOD = Method(
    prune=prune,
    options=SynflowOptions,
    outline=outline,
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    own_level=lambda options: "global",
)
