"""First-order influence on the loss: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019
(arXiv 1906.10771), section 3.

What the loss would change by if a channel were zero, to first order, squared and averaged over batches of the training
data; the channels with the least of it go. By `of`:

    gates    (dL/dz)^2 of a gate z = 1 that multiplies the channel: the joint effect of all that it is made of
    weights  sum of (w * dL/dw)^2 over the weights of the layers that compute it

A gate stands behind the normalisation that follows the layer, as in the paper's best variant, or behind the layer where
none follows directly. Of channels that a shortcut adds up, all layers that compute them share one gate; by default they
are not pruned. The loss is the task's own: a detector's is that of its training.

The paper removes a few channels at a time while it trains. This is its criterion alone, at once, with the network in
evaluation mode. Scores of different layers compare, so level `global` is the paper's ranking.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.gate_gradients import Gate, over_batches
from pruning.graph.members import Group
from pruning.methods.method import Choice, Method, MethodOptions, Request, needed_calibration
from pruning.reconstruct.responses import Calibration, batch_losses, evaluating
from pruning.select import eligible, select


@dataclass(frozen=True)
class TaylorOptions(MethodOptions):
    """`of`: the gates behind channels, or the weights that compute them."""

    of: Literal["gates", "weights"] = "gates"

    def __post_init__(self) -> None:
        if self.of not in ("gates", "weights"):
            raise Refusal(f"taylor: of {self.of!r} is unknown; choices: gates, weights")


def prune(model: nn.Module, request: Request[TaylorOptions]) -> Choice:
    """Keep the channels with the greatest influence; ValueError without calibration data, or where it has no effect."""
    chosen = eligible(request.groups, request.selection)
    calibration = needed_calibration("taylor", request)
    scores = request.once("influences", lambda: influences(model, chosen, calibration, of=request.options.of))
    return Choice(select(scores, chosen, request.selection))


def influences(
    model: nn.Module, groups: Sequence[Group], calibration: Calibration, *, of: Literal["gates", "weights"] = "gates"
) -> dict[str, Tensor]:
    """The score of each channel of each group, (width,), by the group's name."""
    work = copy.deepcopy(model).requires_grad_(False)
    if of == "gates":
        gates = [gate for group in groups for gate in _behind(work, group)]
        total, n_batches = over_batches("taylor", work, gates, calibration, lambda found: found.sum(0).square())
    else:
        total, n_batches = _of_weights(work, groups, calibration)
    return {name: each / n_batches for name, each in total.items()}


def _behind(model: nn.Module, group: Group) -> Iterator[Gate]:
    """The gates behind the layers that compute a group's channels, or behind the normalisations that follow these."""
    norms = {producer: norm for norm, producer in group.norms}
    for producer in group.producers:
        (member,) = [m for m in group.members if m.layer == producer and m.side == "out"]
        axis = -1 if isinstance(model.get_submodule(producer), nn.Linear) else 1
        yield Gate(group.name, norms.get(producer, producer), "out", member.positions, axis)


def _of_weights(model: nn.Module, groups: Sequence[Group], calibration: Calibration) -> tuple[dict[str, Tensor], int]:
    """Sums of (w * dL/dw)^2 over the batches, (width,), and the number of these."""
    weights = {
        (group.name, producer): model.get_parameter(f"{producer}.weight").requires_grad_(True)
        for group in groups
        for producer in group.producers
    }
    total = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in groups}
    n_batches = 0
    with evaluating(model), torch.enable_grad():
        for loss in batch_losses(calibration, model):
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for (group, producer), weight, gradient in zip(weights, weights.values(), gradients, strict=True):
                if gradient is None:
                    raise Refusal(f"taylor: the calibration's loss does not depend on {producer}")
                total[group] += (weight.detach() * gradient).double().square().flatten(1).sum(1).cpu()
            n_batches += 1
    if not n_batches:
        raise Refusal("taylor: the calibration ran no batch")
    return total, n_batches


METHOD = Method(prune=prune, options=TaylorOptions, needs="gradients")
