"""Random channels: the control that shows what a criterion is worth at the same counts.

Not from one paper: Mittal et al., Recovering from Random Pruning (WACV 2018, arXiv 1801.10447) made the case
for it. Each group draws its own scores from the seed and its name, so a choice does not depend on what else is pruned.
"""

import torch
from torch import Tensor, nn

from pruning.graph.members import Group
from pruning.methods.method import Method, MethodOptions, by_score
from pruning.seeds import random_stream


def score(model: nn.Module, group: Group, *, options: MethodOptions | None = None, seed: int = 0) -> Tensor:
    """Uniform random numbers, shape (width,)."""
    return torch.rand(group.width, generator=random_stream(seed, group.name))


METHOD = Method(prune=by_score(score), options=MethodOptions)
