"""Networks of shapes alone: on PyTorch's meta device a tensor has no values, and so takes no memory and no time."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

_LARGE = 1 << 16  # bytes, of a tensor


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; what it computes in evaluation mode has the shapes of what `model` would.

    The tensors of `model` are not copied on the way.
    """
    # deepcopy takes what `memo` holds under an object's id for the copy of that object
    memo: dict[int, object] = {id(p): _shape_of(p) for p in model.parameters()}
    memo |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    blank = copy.deepcopy(model, memo)
    for module in blank.modules():
        if type(module) is nn.BatchNorm2d and module.affine:
            module.__class__ = _Scale
    return blank


class _Scale(nn.BatchNorm2d):
    """A BatchNorm's shapes without its arithmetic, which the meta device does in slow Python."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


@contextmanager
def parameters_without_values() -> Iterator[None]:
    """Within it, parameters of new modules go to the meta device, where drawing them takes no time; buffers do not."""
    handle = register_module_parameter_registration_hook(_without_value)
    try:
        yield
    finally:
        handle.remove()


def _without_value(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:
    return _shape_of(parameter)


def _shape_of(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


def fill_with_zeros(model: nn.Module) -> None:
    """Give every tensor of `model` that has no values zeros, in place; they take memory only where they are written."""
    made: dict[Tensor, Tensor] = {}  # a tensor that two layers share stays one
    for module in model.modules():
        own = [*module.named_parameters("", False, False), *module.named_buffers("", False, False)]
        for name, tensor in own:
            if tensor.is_meta:
                if tensor not in made:
                    made[tensor] = _zeros(tensor)
                setattr(module, name, made[tensor])


def _zeros(like: Tensor) -> Tensor:
    # The system hands out cleared memory page by page when it is written, and until then has one page for all of it;
    # PyTorch takes and clears it at once.
    if like.nbytes < _LARGE:
        zeros = torch.zeros_like(like, device="cpu")
    else:
        memory = mmap(-1, like.nbytes, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        zeros = torch.frombuffer(memory, dtype=like.dtype).view(like.shape)
    return nn.Parameter(zeros, requires_grad=like.requires_grad) if isinstance(like, nn.Parameter) else zeros
