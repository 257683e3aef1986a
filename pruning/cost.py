"""Params, multiply-adds and latency of a network: one counter for all."""

import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from pruning.graph.norm_channels import is_batch_norm
from pruning.masks import Masks

# operators that do no multiply-add of a convolution or linear layer; any other unknown one is an error
_FREE = frozenset(
    f"aten::{name}"
    for name in (
        "add add_ sub sub_ rsub mul mul_ div div_ neg pow sqrt rsqrt exp mean sum max min clamp clamp_ relu "
        "relu_ sigmoid sigmoid_ hardswish hardswish_ hardsigmoid hardsigmoid_ hardtanh hardtanh_ silu silu_ "
        "gelu tanh softmax log_softmax dropout dropout_ feature_dropout max_pool2d avg_pool2d "
        "adaptive_avg_pool2d adaptive_max_pool2d flatten reshape view permute transpose contiguous unflatten "
        "cat stack split chunk slice select unbind unsqueeze squeeze expand repeat pad constant_pad_nd index "
        "index_select index_copy zeros zeros_like ones ones_like full arange clone detach to size roll masked_fill "
        "ne eq bitwise_not upsample_nearest2d upsample_bilinear2d linalg_vector_norm scaled_dot_product_attention "
        "new_zeros new_full fill_ copy_ type_as "
    ).split()
)
# counted by fvcore, but not multiply-adds of a layer with weights
_COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")
_DROPPED = (
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "adaptive_avg_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
)


def count_params(model: nn.Module) -> int:
    """Number of parameters; buffers (running statistics, selected indices) do not count."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of all convolutions and linear layers in one forward pass of `example` (batch size included).

    Biases, normalisation, activations and pooling are not counted. Raises ValueError on an operator
    that the counter does not know.
    """
    return count_macs_of_parts(model, example, [""])[""]


def count_macs_of_parts(model: nn.Module, example: Tensor, parts: Sequence[str]) -> dict[str, int]:
    """`count_macs` of some submodules within one forward pass of `model`, by their names; "" is all of it."""
    with _quiet(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace warns about what it makes constant
        analysis = FlopCountAnalysis(model, example).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted: Mapping[str, Counter[str]] = analysis.by_module_and_operator()
        unknown = sorted(op for op in analysis.unsupported_ops() if op not in _FREE and not op.startswith("prim::"))
    if unknown:
        raise ValueError(f"cannot count the multiply-adds of {', '.join(unknown)} in {type(model).__name__}")
    odd = sorted(set(counted[""]) - set(_COUNTED) - set(_DROPPED))
    if odd:
        raise ValueError(f"operators counted in unknown units in {type(model).__name__}: {', '.join(odd)}")
    return {part: int(sum(counted[part][op] for op in _COUNTED)) for part in parts}


def measure_latency(
    models: dict[str, nn.Module], example: Tensor, *, rounds: int = 30, warmup: int = 5
) -> dict[str, float]:
    """Median milliseconds of one forward pass of each model, taken in turn so that they share the machine's drift."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with _evaluating(models.values()), torch.inference_mode():
        for i in range(warmup + rounds):
            for name, model in models.items():
                start = time.perf_counter()
                model(example)
                if example.is_cuda:
                    torch.cuda.synchronize()
                if i >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(torch.tensor(values).median()) for name, values in seconds.items()}


@contextmanager
def _evaluating(models: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode; the modes are restored."""
    modes = {m: m.training for model in models for m in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without fvcore's and the tracer's log lines; the modes are restored."""
    logger = logging.getLogger("fvcore")
    level = logger.level
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator otherwise
        logger.setLevel(logging.ERROR)
        with _evaluating([model]):
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fused_attention)


def map_areas(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Pixels of the output map of each convolution, linear layer and BatchNorm, for inputs of the size of `example`."""
    areas: dict[str, int] = {}

    def note(layer: nn.Module, _: object, out: Tensor) -> None:
        areas.setdefault(names[layer], 1 if isinstance(layer, nn.Linear) else out.shape[2:].numel())

    names: dict[nn.Module, str] = {
        m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) or is_batch_norm(m)
    }
    modes = {m: m.training for m in model.modules()}
    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return areas


def masked_costs(model: nn.Module, masks: Masks, example: Tensor) -> tuple[int, int]:
    """Params and multiply-adds of the weights that `masks` leave, for one input `example` (1, C, H, W).

    Hardware does not save what is counted here; equal-compute budgets of the literature count so.
    """
    areas = map_areas(model, example)
    removed = {name.removesuffix(".weight"): int((~mask).sum()) for name, mask in masks.items()}
    params = count_params(model) - sum(removed.values())
    return params, count_macs(model, example) - sum(n * areas[layer] for layer, n in removed.items())
