"""Channels-last training, with the exceptions that make it pay on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# In float32 on a CPU, PyTorch reorders the gradient of a channels-last weight back and forth; for a convolution with
# more weights than this that takes longer than channels-last saves (256 x 256 x 3 x 3 has 590 thousand; measured
# at batch 4 and 128 pixels, where it is a third of such a layer's time).
_MOST_WEIGHTS = 500_000


@contextmanager
def channels_last(model: nn.Module, *, dtype: torch.dtype | None) -> Iterator[None]:
    """Within the block the model computes on (N, H, W, C) in memory; shapes and values are the same.

    `dtype` is autocast's, None for float32. On leaving, all weights are contiguous again.
    """
    model.to(memory_format=torch.channels_last)
    hooks = []
    if dtype is None and all(p.device.type == "cpu" for p in model.parameters()):
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > _MOST_WEIGHTS:
                module.to(memory_format=torch.contiguous_format)
                hooks.append(module.register_forward_pre_hook(_contiguous_input))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.to(memory_format=torch.contiguous_format)


def _contiguous_input(module: nn.Module, inputs: tuple) -> tuple:
    return tuple(x.contiguous() for x in inputs)
