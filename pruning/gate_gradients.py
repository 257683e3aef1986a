"""What the loss would change by with each channel, image by image: its derivative by gates z = 1 that multiply them.

No gate is put into the network: the derivative is the sum of x * dL/dx over the positions of what it would multiply.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pruning.errors import Refusal
from pruning.graph.members import Side
from pruning.reconstruct.responses import Calibration, batch_losses, evaluating


@dataclass(frozen=True)
class Gate:
    """Where a gate multiplies the channels of a group: what `layer` reads ("in") or answers ("out").

    `positions` (width, P): the places of each channel along `axis`. A group may have several; they share one value.
    """

    group: str
    layer: str
    side: Side
    positions: tuple[tuple[int, ...], ...]
    axis: int


class GateGradients:
    """Gathers dL/dz of every image in the forward and backward passes that follow, by the name of the group.

    A forward pass without gradients is let go by. Where what a gate multiplies depends on nothing that is trained, it
    is made a start of the backward pass, one of `starts`, so that frozen layers have their gradients too.
    """

    def __init__(self, model: nn.Module, gates: Iterable[Gate]):
        self.starts: list[Tensor] = []
        self._passes: list[dict[str, Tensor]] = []
        self._open: dict[str, Tensor] = {}  # sums (N, width) of the pass whose gradients are coming in
        self._ended = False
        self._device = next(model.parameters()).device
        self._handles = [self._watch(model.get_submodule(gate.layer), gate) for gate in gates]

    def take(self) -> list[Mapping[str, Tensor]]:
        """dL/dz (N, width) of each group, for each forward pass since the last call that had its backward pass."""
        self._end_pass()
        found, self._passes = self._passes, []
        return list(found)

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()

    def _watch(self, layer: nn.Module, gate: Gate) -> RemovableHandle:
        places = torch.tensor(gate.positions, device=self._device)  # once: a GPU would be waited for in each pass

        def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            return (self._seen(gate, places, inputs[0]), *inputs[1:]) if torch.is_grad_enabled() else None

        def answered(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            # a copy goes on, since an activation may overwrite it
            return self._seen(gate, places, output).clone() if torch.is_grad_enabled() else None

        return layer.register_forward_pre_hook(read) if gate.side == "in" else layer.register_forward_hook(answered)

    def _seen(self, gate: Gate, places: Tensor, x: Tensor) -> Tensor:
        """A view of `x` of its own, whose gradient is that of this one reader."""
        if self._ended:
            self._end_pass()
        if not x.requires_grad:
            x = x.detach().requires_grad_()
            self.starts.append(x)
        view = x.view_as(x)
        values = view.detach()

        def add(gradient: Tensor) -> None:
            self._ended = True
            found = _by_channel(values, gradient, gate.axis)[:, places].sum(2)
            before = self._open.get(gate.group)
            self._open[gate.group] = found if before is None else before + found

        view.register_hook(add)
        return view

    def _end_pass(self) -> None:
        if self._open:
            self._passes.append(self._open)
        self._open, self._ended, self.starts = {}, False, []


def _by_channel(x: Tensor, gradient: Tensor, axis: int) -> Tensor:
    """Sums of x * gradient over all but the images and `axis`, (N, C), in float64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    product = x.to(dtype) * gradient.to(dtype)
    others = [dim for dim in range(1, product.ndim) if dim != axis % product.ndim]
    return (product.sum(others) if others else product).double()


@contextmanager
def gathering(model: nn.Module, gates: Iterable[Gate]) -> Iterator[GateGradients]:
    """`GateGradients` whose hooks leave the network with the block."""
    gradients = GateGradients(model, gates)
    try:
        yield gradients
    finally:
        gradients.close()


def over_batches(
    name: str,
    model: nn.Module,
    gates: Sequence[Gate],
    calibration: Calibration,
    reduce: Callable[[Tensor], Tensor],
) -> tuple[dict[str, Tensor], int]:
    """`reduce`(dL/dz (N, width)) of each group summed over the calibration's batches, and their number.

    In evaluation mode, for the method `name`. ValueError where there is no batch, or its loss does not depend on a
    group. The parameters of `model` must be frozen, and stay without gradients.
    """
    groups = dict.fromkeys(gate.group for gate in gates)
    total: dict[str, Tensor] = {}
    n_batches = 0
    with gathering(model, gates) as gradients, evaluating(model), torch.enable_grad():
        for loss in batch_losses(calibration, model):
            if gradients.starts:
                torch.autograd.grad(loss, gradients.starts, allow_unused=True)
            passes = gradients.take()
            for group in groups:
                if not any(group in found for found in passes):
                    raise Refusal(f"{name}: the calibration's loss does not depend on {group}")
                for found in passes:
                    total[group] = total.get(group, torch.zeros(())) + reduce(found[group]).cpu()
            n_batches += 1
    if not n_batches:
        raise Refusal(f"{name}: the calibration ran no batch")
    return total, n_batches
