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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
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
    total = {group.name: torch.zeros(group.width, dtype=torch.float64) for group in groups}
    asked = _gates(work, groups) if of == "gates" else _weights(work, groups)
    n_batches = 0
    with asked as tensors, evaluating(work), torch.enable_grad():
        for loss in batch_losses(calibration, work):
            gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
            for (group, producer), tensor, gradient in zip(tensors, tensors.values(), gradients, strict=True):
                if gradient is None:
                    raise Refusal(f"taylor: the calibration's loss does not depend on {producer or group.name}")
                first_order = (tensor.detach() * gradient).double().square()
                total[group.name] += first_order.flatten(1).sum(1).cpu() if tensor.ndim > 1 else first_order.cpu()
            n_batches += 1
    if not n_batches:
        raise Refusal("taylor: the calibration ran no batch")
    return {name: each / n_batches for name, each in total.items()}


Asked = dict[tuple[Group, str], Tensor]  # by group and, of weights, the layer that computes its channels


@contextmanager
def _weights(model: nn.Module, groups: Sequence[Group]) -> Iterator[Asked]:
    yield {
        (group, producer): model.get_parameter(f"{producer}.weight").requires_grad_(True)
        for group in groups
        for producer in group.producers
    }


@contextmanager
def _gates(model: nn.Module, groups: Sequence[Group]) -> Iterator[Asked]:
    """Within the block the outputs of layers are multiplied by the gates, of ones, that are yielded."""
    some = next(model.parameters())
    gates: Asked = {(group, ""): some.new_ones(group.width).requires_grad_(True) for group in groups}
    handles = []
    try:
        for (group, _), gate in gates.items():
            behind = {producer: norm for norm, producer in group.norms}
            for producer in group.producers:
                layer = model.get_submodule(behind.get(producer, producer))
                handles.append(layer.register_forward_hook(_multiply(gate, group, producer, model)))
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _multiply(gate: Tensor, group: Group, producer: str, model: nn.Module):  # type: ignore[no-untyped-def]
    """The hook that multiplies the producer's channels, on axis 1 of maps and on the last of vectors."""
    (member,) = [m for m in group.members if m.layer == producer and m.side == "out"]
    places = torch.tensor([place for (place,) in member.positions], device=gate.device)
    width = len(model.get_parameter(f"{producer}.weight"))

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        whole = gate.new_ones(width).index_put((places,), gate)
        return output * (whole.view(-1, 1, 1) if output.ndim == 4 else whole)

    return hook


METHOD = Method(prune=prune, options=TaylorOptions, needs="gradients")
