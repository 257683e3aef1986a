"""A network that trains by torch.compile: what it computes is fused into fewer, larger kernels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from pruning.effect import Effect
from pruning.errors import Failure, Refusal
from training.distributed import world_size
from training.synchronised_norm import CrossProcessBatchNorm

BACKEND = "inductor"
_MOST_SHAPES = 64  # that a part of a network is compiled for; PyTorch's 8, after which it silently computes as before


@cache
def check_compiler(device: str) -> None:
    """ValueError unless something small can be compiled for a device type ("cpu", "cuda") by this machine."""
    try:
        torch.compile(lambda x: x * x + x, backend=BACKEND)(torch.ones(2, device=device))
    # a compiler that is absent, too old or broken is told in many ways, and all mean that nothing can be compiled
    except Exception as error:
        raise Refusal(f"machine.compile: nothing can be compiled for {device!r} here: {_first_line(error)}") from error
    finally:
        torch.compiler.reset()


def check_compilable(effects: Sequence[Effect]) -> None:
    """ValueError for an effect that compiled code would pass by."""
    for effect in effects:
        if effect.uncompilable is not None:
            raise Refusal(f"machine.compile: {effect.uncompilable}; set it to false for this method")


@contextmanager
def compiled(
    module: nn.Module, effects: Sequence[Effect] = (), *, wanted: bool = True, sizes_vary: bool = False
) -> Iterator[None]:
    """Within the block, if `wanted`, `module` is compiled where it trains; in evaluation mode it computes as before.

    The module stays the same one: names in its state and hooks on itself are untouched. `sizes_vary`: one program for
    inputs of all sizes, not one for each. ValueError, before anything is computed, for what cannot be compiled: the
    `effects` that act on it, BatchNorms over several processes, and where the machine has no compiler.
    """
    if not wanted:
        yield
        return
    check_compilable(effects)
    if world_size() > 1 and any(isinstance(m, CrossProcessBatchNorm | nn.SyncBatchNorm) for m in module.modules()):
        raise Refusal(
            "machine.compile: BatchNorms over several processes are not compiled; set it to false, or train in one"
        )
    check_compiler(next(module.parameters()).device.type)
    import torch._dynamo  # late: it takes a second

    with torch._dynamo.config.patch(recompile_limit=_MOST_SHAPES, fail_on_recompile_limit_hit=True):
        # `forward` and not the module is compiled: hooks that come and go with a step stay outside
        plain = module.forward
        module.forward = _while_training(module, plain, dynamic=sizes_vary)
        try:
            yield
        finally:
            del module.forward  # the class has it
            torch.compiler.reset()  # the next network, of the same classes, is another one


def _while_training(module: nn.Module, plain: Callable[..., object], *, dynamic: bool) -> Callable[..., object]:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    fast = torch.compile(plain, backend=BACKEND, dynamic=dynamic)

    def forward(*inputs: Tensor) -> object:
        if not module.training:
            return plain(*inputs)
        try:
            return fast(*inputs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            kind = type(module).__name__
            raise Failure(
                f"machine.compile: {kind} cannot be compiled, set it to false: {_first_line(error)}"
            ) from error

    return forward


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
