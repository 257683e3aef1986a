"""Params, multiply-adds and latency of a network: one counter for all."""

import logging
import math
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from fvcore.nn.jit_handles import Handle, get_shape
from torch import Tensor, nn
from torch._C import Value
from torch.utils.flop_counter import FlopCounterMode

from pruning.errors import Refusal
from pruning.graph.layers import is_batch_norm
from pruning.graph.shapes import without_values
from pruning.masks import Masks
from pruning.modes import evaluation_mode

# Operators that multiply and add up: one of these that the counter has no formula for is an error, any other is free.
_PRODUCT = re.compile(
    r"conv|attention|transformer|fft|lstm|gru|^rnn|einsum|matmul|(mm|mv|dot|linear)$"
    r"|^(inner|outer|ger|addr|kron|cdist|cov|corrcoef|matrix_\w+|linalg_(?!\w*norm)\w+)$"
)
# Namespaces of operators whose names say what they do; those of others are nobody's guess.
_NAMED = ("aten", "prim", "torchvision")
# Training MACs over those of the forward pass: the backward pass multiplies about twice as often, for the gradients of
# inputs and of weights. (Liu et al. budget by the forward pass alone, which comes to the same ratio.)
TRAINING_FACTOR = 3
# what a network that looks at values may raise where there are none
_NOT_BY_SHAPES = (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError)
_COUNTED = ("conv", "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")
# counted by fvcore, but they multiply by no learned weight, or one number a channel
_DROPPED = (
    *(f"{kind}_norm" for kind in ("batch", "layer", "group", "instance")),
    "adaptive_avg_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "grid_sampler",
)


def count_params(model: nn.Module) -> int:
    """Number of parameters; buffers (running statistics, selected indices) do not count."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of all convolutions, linear layers and products of matrices in one forward pass of `example`.

    The batch size is included. Both products of attention count, whether the network writes them out or calls a fused
    operator. Biases, normalisation, activations and pooling do not. Raises ValueError on an operator that multiplies
    and adds up and that the counter does not know.
    """
    return count_macs_of_parts(model, example, [""])[""]


def count_macs_of_parts(model: nn.Module, example: Tensor, parts: Sequence[str]) -> dict[str, int]:
    """`count_macs` of some submodules within one forward pass of `model`, by their names; "" is all of it."""
    counted = _counted(FlopCountAnalysis, _HANDLES, model, example)
    # its other formulas count elements or additions, not multiply-adds: none may slip in unseen
    odd = sorted(set(counted[""]) - set(_COUNTED) - set(_DROPPED))
    if odd:
        raise Refusal(f"operators counted in unknown units in {type(model).__name__}: {', '.join(odd)}")
    return {part: int(sum(counted[part][op] for op in _COUNTED)) for part in parts}


def count_macs_by_shapes(model: nn.Module, example: Tensor, small: Tensor, parts: Sequence[str]) -> dict[str, int]:
    """`count_macs_of_parts` of a large `example`, on which nothing is computed: to trace it takes gigabytes.

    The counts are those of PyTorch's counter, which is content with shapes, but passes over operators that it does not
    know. It is believed where both count the same on the input `small`; else the large one is computed after all.
    """
    try:
        exact, blank = count_macs_of_parts(model, small, parts), without_values(model)
        if exact == _macs_of_shapes(blank, small.shape, parts):
            return _macs_of_shapes(blank, example.shape, parts)
    except _NOT_BY_SHAPES:
        pass  # or it takes no input as small
    return count_macs_of_parts(model, example, parts)


def _macs_of_shapes(blank: nn.Module, size: Sequence[int], parts: Sequence[str]) -> dict[str, int]:
    """Multiply-adds of a network on the meta device, by parts; 0 of a part that is not run."""
    counter = FlopCounterMode(display=False)
    with _quiet(blank), torch.no_grad(), counter:
        blank(torch.empty(*size, device="meta"))
    counted = counter.get_flop_counts()
    names = {part: ".".join(filter(None, (type(blank).__name__, part))) for part in parts}
    return {part: sum(counted.get(name, {}).values()) // 2 for part, name in names.items()}


def count_activations(model: nn.Module, example: Tensor) -> int:
    """Elements of the outputs of all convolutions, linear layers and products of matrices in one forward pass.

    Of attention in one operator the output alone. Outputs of normalisation, activations, sums and pooling, which may
    overwrite their inputs, do not count. The batch size is included; ValueError as `count_macs`. This is what
    "activations" means in Radosavovic et al., Designing Network Design Spaces (CVPR 2020).
    """
    return count_activations_of_parts(model, example, [""])[""]


def count_activations_of_parts(model: nn.Module, example: Tensor, parts: Sequence[str]) -> dict[str, int]:
    """`count_activations` of some submodules within one forward pass of `model`, by their names; "" is all of it."""
    counted = _counted(ActivationCountAnalysis, _OUTPUTS, model, example)
    return {part: int(sum(counted[part].values())) for part in parts}


def _counted(
    kind: type[FlopCountAnalysis] | type[ActivationCountAnalysis],
    handles: Mapping[str, Handle],
    model: nn.Module,
    example: Tensor,
) -> Mapping[str, Counter[str]]:
    """What an analysis counts in each module, by operator; ValueError for a product that it has no formula for."""
    with _quiet(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace warns about what it makes constant
        analysis = kind(model, example).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle(**{f"aten::{name}": handle for name, handle in handles.items()})
        counted: Mapping[str, Counter[str]] = analysis.by_module_and_operator()
        # What fvcore has no formula for it leaves out. Only names can tell an activation, which costs nothing here,
        # from a product that the count would lack.
        unknown = sorted(op for op in analysis.unsupported_ops() if _multiplies(op))
    if unknown:
        raise Refusal(f"cannot count the multiply-adds of {', '.join(unknown)} in {type(model).__name__}")
    return counted


def _multiplies(operator: str) -> bool:
    """May an operator that has no formula multiply and add up? Its name, as in "aten::mul_", says so."""
    namespace, _, name = operator.partition("::")
    return namespace not in _NAMED or bool(_PRODUCT.search(name.strip("_")))


def _attention_macs(inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Query (..., L, E) times key (..., S, E), and the result times value (..., S, V)."""
    query, key, value = (get_shape(v) for v in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _baddbmm_macs(inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """(B, n, m) times (B, m, p), added to the first input."""
    return math.prod(get_shape(inputs[1])) * get_shape(inputs[2])[-1]


def _conv_macs(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """A convolution whose padding is given by name; kernel (O, I / groups, kh, kw)."""
    return Counter(conv=math.prod(get_shape(outputs[0])) * math.prod(get_shape(inputs[1])[1:]))


def _elements(inputs: Sequence[Value], outputs: Sequence[Value]) -> int:
    """Elements of an operator's output."""
    return math.prod(get_shape(outputs[0]))


_HANDLES: Mapping[str, Handle] = {
    "scaled_dot_product_attention": _attention_macs,
    "baddbmm": _baddbmm_macs,
    "_convolution_mode": _conv_macs,
    "conv2d": _conv_macs,
}
_OUTPUTS: Mapping[str, Handle] = dict.fromkeys(
    ("_convolution", "_convolution_mode", "conv2d", *(name for name in _COUNTED if name != "conv")), _elements
)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass over `rounds` of them: the median, and the quartiles around it."""

    median: float
    first_quartile: float
    third_quartile: float
    rounds: int


def measure_latency(
    models: Mapping[str, tuple[nn.Module, Tensor]], *, rounds: int, sets: int = 1, warmup: int = 5
) -> dict[str, tuple[Latency, ...]]:
    """Times of one forward pass of each model on its example, taken in turn so that they share the machine's drift.

    Of each model `sets` times of `rounds` passes, which are taken in turn as well.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with evaluation_mode(*(model for model, _ in models.values())), torch.inference_mode():
        for i in range(warmup + rounds * sets):
            for name, (model, example) in models.items():
                start = time.perf_counter()
                model(example)
                if example.is_cuda:  # kernels run on after the call returns
                    torch.cuda.synchronize()
                if i >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    return {name: tuple(_latency(values[s::sets]) for s in range(sets)) for name, values in seconds.items()}


def _latency(seconds: Sequence[float]) -> Latency:
    quarters = torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)
    median, first, third = (1e3 * torch.tensor(seconds, dtype=torch.float64).quantile(quarters)).tolist()
    return Latency(median, first, third, len(seconds))


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without fvcore's and the tracer's log lines; the modes are restored."""
    logger = logging.getLogger("fvcore")
    level = logger.level
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator otherwise
        logger.setLevel(logging.ERROR)
        with evaluation_mode(model):
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fused_attention)


def map_areas(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Pixels of the output map of each convolution, linear layer and BatchNorm, for inputs of the size of `example`."""
    try:
        return _areas(without_values(model), example.to("meta"))
    except _NOT_BY_SHAPES:
        return _areas(model, example)


def _areas(model: nn.Module, example: Tensor) -> dict[str, int]:
    areas: dict[str, int] = {}

    def note(layer: nn.Module, _: object, out: Tensor) -> None:
        # the first call counts: a layer that is shared by levels of a pyramid belongs to the largest
        areas.setdefault(names[layer], 1 if isinstance(layer, nn.Linear) else out.shape[2:].numel())

    names: dict[nn.Module, str] = {
        m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) or is_batch_norm(m)
    }
    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return areas


class LayerCosts:
    """Params and multiply-adds of what pruning leaves of a network, from one count of the network itself.

    Every weight of a convolution or linear layer multiplies as often whatever is left beside it: at each pixel of a
    map, each token of a sequence, in each call. Products that belong to no such layer count in full. `example`: one
    input (1, C, H, W).
    """

    def __init__(self, model: nn.Module, example: Tensor):
        layers = {f"{name}.weight": name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        weights = {name: weight.numel() for name, weight in model.named_parameters() if name in layers}
        counted = count_macs_of_parts(model, example, ["", *layers.values()])
        self._times = {name: counted[layers[name]] // size for name, size in weights.items()}
        self._others = counted[""] - sum(self._times[name] * size for name, size in weights.items())

    def macs(self, small: nn.Module, masks: Mapping[str, Tensor]) -> int:
        """Multiply-adds of `small`, cut from the network that was counted, of the weights that `masks` leave."""
        weights = {name: weight.numel() for name, weight in small.named_parameters() if name in self._times}
        left = {name: int(masks[name].sum()) if name in masks else size for name, size in weights.items()}
        return self._others + sum(self._times[name] * n for name, n in left.items())


def masked_params(model: nn.Module, masks: Mapping[str, Tensor]) -> int:
    """Number of parameters that those of `masks` which are of this model leave."""
    return sum(int(masks[name].sum()) if name in masks else p.numel() for name, p in model.named_parameters())


def masked_costs(model: nn.Module, masks: Masks, example: Tensor) -> tuple[int, int]:
    """Params and multiply-adds of the weights that `masks` leave, for one input `example` (1, C, H, W).

    Hardware does not save what is counted here; equal-compute budgets of the literature count so.
    """
    return masked_params(model, masks), LayerCosts(model, example).macs(model, masks)
