"""Filter pruning via geometric median: He et al., CVPR 2019 (arXiv 1811.00250), section 3.

Not the small filters go but those that the others can replace: near the geometric median of their layer. The score of
a filter is the sum of its Euclidean distances to all filters of its layer; the lowest go. Channels that a
shortcut adds up are scored by the sum over the layers that produce them; by default they are not pruned.

The paper prunes while training, as soft filter pruning does, and mixes in the L2 norm in some experiments. This is its
criterion alone, on a trained network.
"""

import torch
from torch import Tensor, nn

from pruning.graph.members import Group
from pruning.methods.method import Method, MethodOptions, by_score


def score(model: nn.Module, group: Group, *, options: MethodOptions | None = None, seed: int = 0) -> Tensor:
    """Sum of the distances of each output channel's weights to those of all others, shape (width,)."""
    total = torch.zeros(group.width, dtype=torch.float64)
    for name in group.producers:
        filters = model.get_parameter(f"{name}.weight").detach().double().flatten(1)
        # by differences: by products, as the other mode has it, equal filters would be a rounding error apart
        total += torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1).cpu()
    return total


METHOD = Method(prune=by_score(score), options=MethodOptions)
