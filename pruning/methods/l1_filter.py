"""L1-norm filter pruning: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (arXiv 1608.08710), section 3.

The score of a filter is the sum of |w| over (in, kh, kw); the filters with the lowest scores go, their
BatchNorm channels and the next layer's inputs with them. Channels that a shortcut adds up are scored by the
sum over the layers that produce them (the paper scores them by the shortcut's projection alone); by default they
are not pruned.
"""

import torch
from torch import Tensor, nn

from pruning.graph.members import Group
from pruning.methods.method import Method, MethodOptions, by_score


def score(model: nn.Module, group: Group, *, options: MethodOptions | None = None, seed: int = 0) -> Tensor:
    """Sum of absolute weights of each output channel, shape (width,)."""
    total = torch.zeros(group.width, dtype=torch.float64)
    for name in group.producers:
        weight = model.get_parameter(f"{name}.weight").detach()  # (out, in, kh, kw) or (out, in)
        total += weight.double().abs().flatten(1).sum(1).cpu()
    return total


METHOD = Method(prune=by_score(score), options=MethodOptions)
