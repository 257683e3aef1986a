"""What a pruning by target is measured by in a study: the share of the unpruned classifier that is left.

So the same target means the same network in a classifier and inside a detector, and after an earlier pruning the share
is still that of the network that nothing was removed from. It is the cost that results record as `network` beside
`dense`: at the classifier's input size, with its head; what is removed of a detector's FPN does not count.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import nn

from classify.models.blank import rebuild_blank
from pruning.by_target import CostLeft, Reached, at_target
from pruning.cost import LayerCosts
from pruning.cut import make_plan
from pruning.graph.groups import Group
from pruning.methods import Choice, MethodOptions, Request
from pruning.surgery import apply
from study.stages.network import Network, dense_groups
from study.stages.settings import Effect
from training.files import canonical


class _Unpruned:
    """The network that nothing was removed from, without weights; its groups and its costs are found when asked for."""

    def __init__(self, network: Network):
        self._network = network.dense()
        with torch.random.fork_rng(devices=[]):  # others' constructors draw
            self.model = rebuild_blank(self._network.plan, network.num_classes)

    @cached_property
    def groups(self) -> Sequence[Group]:
        # found when something is cut: single weights go of networks that cannot be followed
        return dense_groups(self._network, self.model)

    @cached_property
    def costs(self) -> LayerCosts:
        return LayerCosts(self.model, self._network.example())


_KEPT = 8
_known: dict[str, _Unpruned] = {}  # the last few: a study asks for many prunings of few networks


def _unpruned(network: Network) -> _Unpruned:
    dense = network.dense()
    key = canonical([dense.plan.to_json(), dense.num_classes, list(dense.example().shape)])
    if key not in _known:
        if len(_known) == _KEPT:
            del _known[next(iter(_known))]
        _known[key] = _Unpruned(network)
    return _known[key]


def cost_left(network: Network, groups: Sequence[Group]) -> CostLeft:
    """For a choice among `groups` of `network`, which may have been pruned before."""
    unpruned = _unpruned(network)

    def cut(choice: Choice) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            plan = network.then(make_plan(network.arch, groups, choice), {}).backbone().plan
        return apply(unpruned.model, plan, unpruned.groups if plan.changes_shape else ())

    return CostLeft(unpruned.model, lambda: unpruned.costs, cut)


def effect_request(
    wanted: Effect, model: nn.Module, network: Network, groups: Sequence[Group], seed: int
) -> Request[MethodOptions]:
    """What the training effect of a method is asked for `model`, at the ratio of its target where it has one."""
    request = wanted.request(groups, seed, network.example())
    return at_share(model, wanted.method, request, network)[0]


def at_share(
    model: nn.Module, method: str, request: Request[MethodOptions], network: Network
) -> tuple[Request[MethodOptions], Reached | None]:
    """As `at_target`, of `network`, which nothing is built of where there is no target."""
    if request.selection.cost_target is None:
        return request, None
    return at_target(model, method, request, cost_left(network, request.groups))
