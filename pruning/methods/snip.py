"""Connection sensitivity: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019
(arXiv 1810.02340), section 4.

What the loss would change by, to first order, if a connection were removed: |w * dL/dw|, which is |dL/dc| of a gate
c = 1 on the weight. L is the loss over batches of training data; one threshold goes over the weights of all
convolutions and linear layers. Meant for a network that was never trained (`prune_at_init`); any other will do.

The gradients of the batches add up before the absolute value is taken, as those of one large batch of equal parts
would. The network is in evaluation mode, as in the released code: a fresh BatchNorm is the identity then. The paper
divides the scores by their sum, which changes no order, and may leave a layer with nothing; here each keeps the weight
that scores best. Its networks have biases that are pruned too, ours keep them. `shuffle` gives the control of Su et
al. (see `select_weights.shuffled`).
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.methods.method import Calibration, Choice, Method, MethodOptions, Request, needed_calibration
from pruning.reconstruct.responses import batch_losses, evaluating
from pruning.select import count_left
from pruning.select_weights import conv_weights, keep_largest, shuffled


@dataclass(frozen=True)
class SnipOptions(MethodOptions):
    """`linear`: linear layers lose weights too. `shuffle`: of each layer as many random weights stay instead."""

    linear: bool = True
    shuffle: bool = False


def prune(model: nn.Module, request: Request[SnipOptions]) -> Choice:
    """Masks over the weights of `model`; `ratio` is the fraction removed. ValueError without calibration data."""
    weights = _weights(model, request)
    calibration = needed_calibration("snip", request)
    scores = request.once("scores", lambda: sensitivities(model, weights.keys(), calibration))
    return _keep(scores, request)


def outline(model: nn.Module, request: Request[SnipOptions]) -> Choice:
    """As many weights, of the largest values."""
    return _keep({name: weight.abs() for name, weight in _weights(model, request).items()}, request)


def _weights(model: nn.Module, request: Request[SnipOptions]) -> dict[str, Tensor]:
    if request.selection.layers:
        raise Refusal("snip: one threshold over the network; leave out `layers`")
    return conv_weights(model, request.selection, linear=request.options.linear)


def _keep(scores: Mapping[str, Tensor], request: Request[SnipOptions]) -> Choice:
    total = sum(score.numel() for score in scores.values())
    masks = keep_largest(scores, count_left(total, request.selection.stage_ratios()[0]))
    return Choice(masks=shuffled(masks, request.seed) if request.options.shuffle else masks)


def sensitivities(model: nn.Module, names: Collection[str], calibration: Calibration) -> dict[str, Tensor]:
    """The score of each weight of the named parameters, shaped like them; 0 where the loss does not depend on it."""
    work = copy.deepcopy(model).requires_grad_(False)
    weights = {name: work.get_parameter(name).requires_grad_(True) for name in names}
    total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    reached = False
    with evaluating(work), torch.enable_grad():
        for loss in batch_losses(calibration, work):
            if not loss.requires_grad:
                continue
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
                    reached = True
    if not reached:
        raise Refusal("snip: the calibration ran no batch, or its loss depends on none of the weights")
    return {name: (weight.detach() * total[name]).abs() for name, weight in weights.items()}


METHOD = Method(
    prune=prune,
    options=SnipOptions,
    needs="gradients",
    outline=outline,
    predefined=False,
    unstructured=lambda options: True,
    linear=lambda options: options.linear,
    own_level=lambda options: "global",
)
