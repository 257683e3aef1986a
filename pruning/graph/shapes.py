"""Networks of shapes alone: on PyTorch's meta device tensors have no values, and operations compute none."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pruning.copying import copy_network


def with_tensors(model: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of `model` with `make(tensor)` for each parameter and buffer, none of which is copied on the way."""
    memo: dict[int, object] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        made = make(tensor)
        if isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = made
    return copy_network(model, memo)


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; what it computes in evaluation mode has the shapes of what `model` would."""
    blank = with_tensors(model, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
    for module in blank.modules():
        if type(module) is nn.BatchNorm2d and module.affine:
            module.__class__ = _Scale
    return blank


class _Scale(nn.BatchNorm2d):
    """A BatchNorm's shapes without its arithmetic, which the meta device does in slow Python."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class Recorded(TorchDispatchMode):
    """Within it `torch.jit`'s tracer follows a network `without_values`.

    The meta device computes most shapes in Python, where a tensor's size is, as long as something is traced, a tensor
    itself: nothing is traced meanwhile. Each operator is recorded before it comes here, but for `convolution`, in whose
    place the tracer records the `_convolution` that it calls.
    """

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aten, was = torch.ops.aten, torch._C._dispatch_tls_is_dispatch_key_excluded("Tracer")
        torch._C._dispatch_tls_set_dispatch_key_excluded("Tracer", False)
        try:
            if func is aten.convolution.default:
                with self:
                    return aten._convolution.default(*args, False, False, False, False)  # says of cuDNN
            if func is aten._convolution.default:
                func, args = aten.convolution.default, args[:9]
            return _untraced(func, args, kwargs or {})
        finally:
            torch._C._dispatch_tls_set_dispatch_key_excluded("Tracer", was)


def _untraced(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return func(*args, **kwargs)
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]
