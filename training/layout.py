"""The layout in memory that networks train in, (N, H, W, C), and convolutions that have a faster way in it.

Where `training.products.linear` beats PyTorch's own product, two kinds of convolution are better computed by it:
those of many filters at few positions, such as a ResNet-18's last ones on an image of 128 pixels, for which oneDNN
reorders the weights three times a step, for the output and for either gradient; and, with one thread, 1 x 1, which
PyTorch gives to MKL then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from training.products import faster_as_convolution, linear

_Pair = tuple[int, int]

# When a convolution is better computed as a product: measured in float32 on an AMD Zen 5 with one thread and two, with
# 64 to 2,048 channels at 64 to 5,000 positions. 64 positions of 512 channels, 3 x 3, take 0.79 of the time, 1 x 1 with
# one thread half to two thirds of it from 128 channels on.
_WEIGHTS_A_POSITION = 4_500
_LEAST_MACS = 3_000_000  # below, the views take longer than is saved


@contextmanager
def channels_last(*models: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within the block the models compute on (N, H, W, C) in memory; shapes are the same, values to rounding.

    `dtype` is autocast's, None for float32. On leaving, all weights are contiguous again.
    """
    changed = [layer for model in models for layer in model.modules() if dtype is None and _can_be_product(layer)]
    for model in models:
        model.to(memory_format=torch.channels_last)
    for layer in changed:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward
        for model in models:
            model.to(memory_format=torch.contiguous_format)


def lay_out_as_weights(optimizer: Optimizer) -> None:
    """Give what an optimizer keeps of each weight, a momentum, the layout of the weight.

    PyTorch's fused optimizers go through memory as it lies: of two layouts they silently add the wrong values.
    """
    for weight, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                kept[key] = torch.empty_like(weight).copy_(value)


def _can_be_product(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        isinstance(layer, nn.Conv2d)
        and (type(layer).forward is nn.Conv2d.forward or _is_plain(layer))
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether it is one of Detectron2's, which may have a normalisation and an activation, that has neither."""
    return type(layer).__module__.startswith("detectron2.") and layer.norm is None and layer.activation is None


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, O, H', W')."""
    pointwise = layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0)
    weights, positions = layer.weight.numel(), _positions(layer, x)
    given_to_mkl = pointwise and torch.get_num_threads() == 1
    worth = weights >= _WEIGHTS_A_POSITION * positions or given_to_mkl
    if not worth or weights * positions < _LEAST_MACS or not faster_as_convolution(x):
        return nn.Conv2d.forward(layer, x)
    shape = layer.kernel_size, layer.stride, layer.padding
    patches = x.permute(0, 2, 3, 1) if pointwise else _Patches.apply(x, *shape)
    y = linear(patches.flatten(3).flatten(0, 2), layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)
    return y.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def _positions(layer: nn.Conv2d, x: Tensor) -> int:
    """Of the output, in all images."""
    count = len(x)
    for axis, size in enumerate(x.shape[2:]):
        count *= (size + 2 * int(layer.padding[axis]) - layer.kernel_size[axis]) // layer.stride[axis] + 1
    return count


class _Patches(torch.autograd.Function):
    """(N, C, H, W) -> (N, H', W', kernel, kernel, C): what a convolution multiplies with its filters."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
        patches = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])  # (N, H', W', C, kernel)
        return patches.permute(0, 1, 2, 4, 5, 3).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        (n, channels, height, width), (down, right), (top, left) = ctx.shape, ctx.stride, ctx.padding
        rows, columns, kernel = grad.shape[1], grad.shape[2], grad.shape[3:5]
        padded = grad.new_zeros(n, height + 2 * top, width + 2 * left, channels)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                padded[:, i : i + down * rows : down, j : j + right * columns : right] += grad[:, :, :, i, j]
        return padded[:, top : top + height, left : left + width].permute(0, 3, 1, 2), None, None, None
