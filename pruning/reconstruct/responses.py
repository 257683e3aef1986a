"""What a layer reads and answers on calibration data, at sampled output positions.

Each batch is sampled in forward hooks and handed on, to be summed up in `least_squares`; `passes` runs the network.
Which images are seen is the calibration's business: it knows the task (a classifier's takes as many of each class).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.layers import SelectInputs
from pruning.modes import evaluation_mode

Calibration = Callable[[nn.Module], Iterable[Tensor]]  # as in methods.method, which imports this module
Hook = Callable[[nn.Module, Tensor, Tensor], None]
"""Called with a layer, its input and its output, for every forward pass."""


@dataclass(frozen=True)
class Places:
    """Sampled output positions of one batch; three index tensors (S,). Columns are 0 behind a linear layer."""

    image: Tensor
    row: Tensor
    column: Tensor


def draw_places(output: Tensor, per_image: int, generator: torch.Generator) -> Places:
    """`per_image` different positions of each image of (N, O, H, W) or (N, ..., O), all if it has no more."""
    n = output.shape[0]
    rows, columns = output.shape[2:] if output.ndim == 4 else (output[0].numel() // output.shape[-1], 1)
    # drawn on the CPU whatever the device, so that a seed means the same positions everywhere; (N, rows * columns)
    order = torch.rand(n, rows * columns, generator=generator).argsort(1)[:, :per_image]
    image = torch.arange(n)[:, None].expand_as(order)
    index = [t.flatten().to(output.device) for t in (image, order // columns, order % columns)]
    return Places(*index)


def patches(layer: nn.Module, x: Tensor, places: Places, positions: Tensor) -> Tensor:
    """What the layer multiplies with its kernel slices at these places, (S, C, K) as in `kernel_slices`.

    `positions` (C, P) are the input channels of interest, of those the layer's kernel has.
    """
    if isinstance(layer, SelectInputs):  # a hook sees what the layer is given, its kernel reads what it selects
        x = x.index_select(1, layer.inputs)
    channels = positions.flatten().to(x.device)
    if isinstance(layer, nn.Linear):
        read = x.reshape(x.shape[0], -1, x.shape[-1])[places.image, places.row][:, channels]
        return read.reshape(len(read), *positions.shape)
    assert isinstance(layer, nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # Gathered by hand, not by `unfold`: of all positions only the sampled ones are formed.
    padded = F.pad(x[:, channels], layer._reversed_padding_repeated_twice, mode=mode)
    kernel_rows, kernel_columns = (torch.arange(k, device=x.device) for k in layer.kernel_size)
    row = places.row[:, None] * layer.stride[0] + kernel_rows * layer.dilation[0]  # (S, kh)
    column = places.column[:, None] * layer.stride[1] + kernel_columns * layer.dilation[1]  # (S, kw)
    # Three index tensors of shapes (S, 1, 1), (S, kh, 1), (S, 1, kw) broadcast to (S, kh, kw); the last axis stays
    # whole.
    read = padded.permute(0, 2, 3, 1)[places.image[:, None, None], row[:, :, None], column[:, None, :]]
    return read.permute(0, 3, 1, 2).reshape(len(read), len(positions), -1)  # (S, kh, kw, C * P) -> (S, C, K)


def response(layer: nn.Module, x: Tensor, places: Places) -> Tensor:
    """The layer's outputs at these places, without its bias, (S, O)."""
    # all inputs, one position each: (S, I, kh * kw) -> (S, I * kh * kw) times (O, I * kh * kw) transposed. The bias is
    # left out, since no choice of channels changes it.
    weight = layer.get_parameter("weight")
    read = patches(layer, x, places, torch.arange(weight.shape[1])[:, None])
    return read.flatten(1) @ weight.flatten(1).T


def batch_losses(calibration: Calibration, model: nn.Module) -> Iterator[Tensor]:
    """The loss of each batch; ValueError for a calibration that answers with one number."""
    losses = calibration(model)
    if isinstance(losses, Tensor):
        raise Refusal("the calibration must yield the loss of each batch, and this one returns a tensor")
    yield from losses


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, also where a calibration sets a network around the model to training mode.

    It must to get a detector's loss, and running statistics must not move.
    """
    with evaluation_mode(model):
        try:
            # an instance's attribute comes before the class's method: a network around calls it, and nothing happens
            vars(model)["train"] = lambda mode=True: model
            yield
        finally:
            vars(model).pop("train", None)


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """A hook on each named layer."""

    def adapted(hook: Hook) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, inputs, output: hook(layer, inputs[0], output)

    handles = [model.get_submodule(name).register_forward_hook(adapted(hook)) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
