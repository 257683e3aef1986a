"""Matrix products of training on a CPU, given to whichever of PyTorch's two libraries computes them faster there.

PyTorch gives a linear layer to MKL, which on AMD processors leaves half of the vector unit idle, and a convolution to
oneDNN. A product is a convolution too: of images of one channel and one column with filters as large as they are. On
processors with AVX512 that takes half of the time in float32 (measured with AMD's Zen 5); without it oneDNN has no fast
way for such a convolution, and in bfloat16 both libraries are oneDNN.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(R, K), (O, K), (O) -> (R, O): as torch.nn.functional.linear, equal to rounding."""
    if not faster_as_convolution(x):
        return F.linear(x, weight, bias)
    return F.conv2d(_images(x), _images(weight), bias).flatten(1)


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """(R, M), (R, K) -> (M, K): left^T right. Without a gradient."""
    if not faster_as_convolution(left):
        return left.T @ right
    (rows, m), k = left.shape, right.shape[1]
    return conv2d_weight(_images(right), (m, 1, k, 1), left.reshape(rows, m, 1, 1)).view(m, k)


def faster_as_convolution(x: Tensor) -> bool:
    """Whether a product of x with weights is better given to oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and _has_avx512()
    )


@cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def _images(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), 1, -1, 1)
