"""Coupled channel groups: which layers must lose the same channels together.

`torch_pruning.DependencyGraph` traces the network through autograd; what it found is kept here as plain data
(layer names and index maps), so that scoring, masking and surgery need neither the graph nor the same instance of
the network. A detector's backbone has the layer names of the classifier and so is pruned with the classifier's groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from pruning.graph.coupling import Index, Reached, coupled_channels
from pruning.graph.dry_cut import broken_by
from pruning.graph.gates import only_gates
from pruning.graph.layers import ScatterOutputs, SelectInputs, is_depthwise, shared_parameters
from pruning.graph.members import Group, Member, Side
from pruning.graph.obstacles import MIXED, Named, obstacle, outside
from pruning.graph.probe import leaks
from pruning.graph.tracing import trace, traceable

if TYPE_CHECKING:
    import torch_pruning as tp

__all__ = ["Group", "Member", "Side", "find_groups", "is_depthwise"]


def find_groups(model: nn.Module, example: Tensor, *, stages: Sequence[str] = ()) -> list[Group]:
    """Every channel group of `model` that does not reach its output, in the order of the layers.

    `example`: an input batch (N, C, H, W) of any size that the network accepts. `stages`: module names whose
    prefix tells a layer's stage, in order. Raises ValueError for a network that cannot be traced.
    """
    names: dict[Named, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    graph = trace(model, example)
    # Three checks, each of what the one before let pass. Reading the graph finds operations known to be in the way; a
    # forward pass with marked channels (`probe`) those that the graph takes for harmless; a cut of shapes alone
    # (`dry_cut`) a width that the forward pass has written into it. A group that fails stays in the list with its
    # reason, so that whoever names it is told why.
    shared = shared_parameters(model)
    found = [_read_group(raw, graph, names, shared, stages) for raw in coupled_channels(graph)]
    # the graph lists modules as autograd met them, from the output backwards
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    groups = sorted((g for g in found if g is not None), key=lambda g: order[g.name])
    with traceable(model):
        leaking = leaks(model, example, [g for g in groups if not g.fixed])
        groups = [replace(g, fixed=f"{MIXED}: {leaking[g.name]}") if g.name in leaking else g for g in groups]
        broken = broken_by(model, example, [g for g in groups if not g.fixed])
    return [
        replace(g, fixed=f"the network counts on their number: {broken[g.name]}") if g.name in broken else g
        for g in groups
    ]


def _read_group(
    raw: list[Reached],
    graph: "tp.DependencyGraph",
    names: dict[Named, str],
    shared: Mapping[str, tuple[str, ...]],
    stages: Sequence[str],
) -> Group | None:
    """Plain data of what the channels run through, or None when they reach the network's output."""
    import torch_pruning as tp

    root = raw[0].node.module
    width = root.out_channels if isinstance(root, _ConvNd) else root.out_features
    members, weighted, norms, fixed = [], {}, [], None
    for reached in raw:
        target, handler, indices, _ = reached
        if isinstance(target.module, tp.ops._OutputOp):
            return None  # its channels are the network's answer: classes, or features that others read
        fixed = fixed or obstacle(reached, names, graph.model)
        one_number = isinstance(target.module, nn.Parameter) and target.module.numel() == 1
        if target.module not in names or one_number:
            continue  # an operation without a number a channel: add, concatenate, flatten, a learned temperature, ...
        name = names[target.module]
        fixed = fixed or _tied(name, shared)
        side: Side = "out" if graph.is_out_channel_pruning_fn(handler) else "in"
        if is_depthwise(target.module):
            side = "out"  # cut once: its inputs are its outputs
        if isinstance(target.module, ScatterOutputs) or (side == "in" and isinstance(target.module, SelectInputs)):
            fixed = fixed or f"{name} uses some channels of a trunk, by their indices"
        positions = _positions(indices, width)
        fixed = fixed or _partial(target.module, name, side, positions)
        # Layers without a side of their own (BatchNorm, depthwise) are met as input and as output with the same map.
        # A layer that reads the group at two places of a concatenation has two members.
        member = Member(name, side, positions)
        if member not in members:
            members.append(member)
        if side == "out" and isinstance(target.module, _ConvNd | nn.Linear) and not is_depthwise(target.module):
            weighted[name] = target
            # Scores add up filter c of every producer for channel c. A layer that computes several outputs for one
            # channel could lose its filters only in bunches.
            if positions != _each(width):
                fixed = fixed or f"channels of {name} can only go several at a time"
        norms += _norm_pairs(target, names)
    if len(members) == 1:
        fixed = fixed or "nothing reads its channels"
    producers = _producers(weighted, raw, graph, names)
    # with the dot: "layer1" is no prefix of layer10.conv
    stage = next((i for i, s in enumerate(stages) if producers[0].startswith(f"{s}.")), -1)
    # a norm behind something else than a producer (a sum, a depthwise convolution) normalises other channels
    pairs = tuple(dict.fromkeys(pair for pair in norms if pair[1] in producers))
    return Group(producers[0], width, producers, tuple(members), stage, fixed, pairs)


def _producers(
    weighted: dict[str, "tp.dependency.Node"], raw: list[Reached], graph: "tp.DependencyGraph", names: dict[Named, str]
) -> tuple[str, ...]:
    """The layers that compute the channels, gates left out, in the order of the network."""
    order = {name: i for i, name in enumerate(names.values())}
    found = sorted(weighted, key=order.__getitem__)
    if len(found) == 1:
        return tuple(found)
    is_in = graph.is_in_channel_pruning_fn
    inside = {reached.node for reached in raw}
    # what takes the group's channels as a signal; a depthwise convolution hands them on
    readers = {
        r.node
        for r in raw
        if isinstance(r.node.module, _ConvNd | nn.Linear) and not is_depthwise(r.node.module) and is_in(r.handler)
    }
    # all of them gates, of each other: then all compute the channels
    return tuple(name for name in found if not only_gates(weighted[name], inside, readers)) or tuple(found)


def _norm_pairs(node: "tp.dependency.Node", names: dict[Named, str]) -> list[tuple[str, str]]:
    """A BatchNorm with the layer before it. One that wraps an activation is met at that; its operation is before it."""
    if not isinstance(node.module, _BatchNorm):
        return []
    own = node  # the node that the module has in the graph is the last operation of its forward pass
    while "BatchNorm" not in own.grad_fn.name() and len(own.inputs) == 1 and own.inputs[0].module not in names:
        own = own.inputs[0]
    return [(names[node.module], names[before.module]) for before in own.inputs if before.module in names]


def _positions(indices: Sequence[Index], width: int) -> tuple[tuple[int, ...], ...]:
    if len(indices) == width and all(index == root == i for i, (index, root) in enumerate(indices)):
        return _each(width)  # nearly always
    # (place, channel) pairs in the order of the walk -> by channel its places; none for one that does not get there
    by_channel: list[list[int]] = [[] for _ in range(width)]
    for index, root in indices:
        by_channel[root].append(index)
    return tuple(tuple(sorted(p)) for p in by_channel)


@cache
def _each(width: int) -> tuple[tuple[int, ...], ...]:
    """Every channel at its own place."""
    return tuple((c,) for c in range(width))


def _tied(layer: str, shared: Mapping[str, tuple[str, ...]]) -> str | None:
    # the cut gives a layer a weight of its own, and what was one parameter would train on as two
    owners = next((names for name, names in shared.items() if name.rpartition(".")[0] == layer), ())
    return f"{' and '.join(owners)} are one parameter" if owners else None


def _partial(
    module: nn.Module | nn.Parameter, layer: str, side: Side, positions: tuple[tuple[int, ...], ...]
) -> str | None:
    if len({len(p) for p in positions}) > 1:
        return f"only some of its channels reach {layer}"
    return f"{MIXED}: {layer}" if outside(module, positions, side) else None
