"""What a pruning by target is measured by in a study: the share of the unpruned classifier that is left.

So the same target means the same network in a classifier and inside a detector, and after an earlier pruning the share
is still that of the network that nothing was removed from. It is the cost that results record as `network` beside
`dense`: at the classifier's input size, with its head; what is removed of a detector's FPN does not count.
"""

from collections.abc import Sequence

import torch
from torch import nn

from classify.models.blank import rebuild_blank
from pruning.by_target import CostLeft, Reached, at_target
from pruning.cut import make_plan
from pruning.graph.groups import Group
from pruning.methods import Choice, MethodOptions, Request
from pruning.surgery import apply
from study.stages.network import Network, dense_groups


def cost_left(network: Network, groups: Sequence[Group]) -> CostLeft:
    """For a choice among `groups` of `network`, which may have been pruned before."""
    unpruned = network.dense()
    with torch.random.fork_rng(devices=[]):  # others' constructors draw
        dense = rebuild_blank(unpruned.plan, unpruned.num_classes)
    all_groups: list[Group] = []  # found when something is cut: single weights go of networks that cannot be followed

    def cut(choice: Choice) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            plan = network.then(make_plan(network.arch, groups, choice), {}).backbone().plan
        # once for all cuts of a search, which asks for many ratios
        if plan.changes_shape and not all_groups:
            all_groups.extend(dense_groups(unpruned, dense))
        return apply(dense, plan, all_groups) if plan.changes_shape else dense

    return CostLeft(dense, network.example(), cut)


def at_share(
    model: nn.Module, method: str, request: Request[MethodOptions], network: Network
) -> tuple[Request[MethodOptions], Reached | None]:
    """As `at_target`, of `network`, which nothing is built of where there is no target."""
    if request.selection.cost_target is None:
        return request, None
    return at_target(model, method, request, cost_left(network, request.groups))
