"""BatchNorm over the images of all processes: PyTorch's on GPUs, and one for the CPU, where PyTorch has none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.distributed import sum_over_processes, world_size
from training.norm_layers import take_children


class CrossProcessBatchNorm(_BatchNorm):
    """In training, statistics over the batches of all processes, which may differ in size or be empty.

    Input (n, C) or (n, C, ...). Takes over the parameters and the buffers of `norm`: they are the same tensors. As in
    PyTorch, the running variance is the unbiased one.
    """

    def __init__(self, norm: _BatchNorm):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, momentum=0.0, eps=self.eps
            )
        values = x.float()
        axes = [0, *range(2, x.dim())]  # all but the channels
        shape = (1, -1, *[1] * (x.dim() - 2))
        n = sum_over_processes(torch.tensor(float(x.numel() // x.shape[1])))
        mean = differentiable_all_reduce(values.sum(axes)) / n
        centred = values - mean.view(shape)
        variance = differentiable_all_reduce(centred.square().sum(axes)) / n
        self._track(mean.detach(), variance.detach() * n / (n - 1))
        scale = (variance + self.eps).rsqrt()
        out = centred * (scale if self.weight is None else scale * self.weight).view(shape)
        return (out if self.bias is None else out + self.bias.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # PyTorch: momentum None is the plain average of all batches so far
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


@contextmanager
def synchronised_norms(model: nn.Module, kind: type[_BatchNorm] = _BatchNorm) -> Iterator[None]:
    """Within the block every BatchNorm of `model` is over all processes; names and tensors of its state are the same.

    `kind` limits this to layers of one class. With one process nothing changes.
    """
    found = {} if world_size() == 1 else dict(model.named_modules(remove_duplicate=False))
    norms = {name: module for name, module in found.items() if isinstance(module, kind) and name}
    on_gpu = any(p.is_cuda for p in model.parameters())
    swapped = {id(norm): _synchronised(norm, on_gpu) for norm in norms.values()}  # one of two names stays one
    try:
        for name, norm in norms.items():
            _put(model, name, swapped[id(norm)])
        yield
    finally:
        for name, norm in norms.items():
            norm.training = swapped[id(norm)].training
            _put(model, name, norm)


def _synchronised(norm: _BatchNorm, on_gpu: bool) -> nn.Module:
    over_all = nn.SyncBatchNorm.convert_sync_batchnorm(norm) if on_gpu else CrossProcessBatchNorm(norm)
    return take_children(over_all, norm)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
