"""Re-estimate the running statistics of BatchNorm, which no longer fit once weights were removed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import Refusal
from pruning.modes import evaluation_mode


def recalibrate(model: nn.Module, batches: Iterable[object]) -> int:
    """Replace running means and variances by their plain averages over `batches`; returns the number of batches.

    In place. `batches`: what `model` takes, for example images (N, C, H, W) of the training set; the study takes 100.
    Nothing else trains: weights are untouched and dropout is off. A network without BatchNorm stays as it is.
    Raises ValueError without a batch; on any error the old statistics are put back.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    seen = 0
    with _estimating(model, norms), torch.no_grad():
        for batch in batches:
            model(batch)
            seen += 1
        if not seen:
            raise Refusal("recalibration needs at least one batch")
    return seen


@contextmanager
def _estimating(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """BatchNorm in training mode with a cumulative average, all else in evaluation mode; modes are restored."""
    momenta = {norm: norm.momentum for norm in norms}
    before = {norm: {key: t.clone() for key, t in norm.named_buffers()} for norm in norms}
    try:
        with evaluation_mode(model):
            # Batch by batch the running values move by 1 / n to the mean over all so far; with the usual momentum of
            # 0.1 the last few batches would decide. In training mode each layer normalises by its batch, so those
            # behind it see what they will see, and not what stale statistics make of it.
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # type: ignore[assignment]  # None is PyTorch's word for a cumulative average
                norm.train()
            yield
    except BaseException:  # Ctrl-C as well: half an average is no statistics
        for norm in norms:
            for key, tensor in norm.named_buffers():
                tensor.copy_(before[norm][key])
        raise
    finally:
        for norm in norms:
            norm.momentum = momenta[norm]
