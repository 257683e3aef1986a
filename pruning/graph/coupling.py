"""Walks torch_pruning's dependency graph: all that is coupled to a layer's output channels.

The graph's own `get_all_groups` gives the same answer, but derives every index map of the network anew for each
group (four fifths of the time for a DenseNet), does not end where slices move channels at each turn of a cycle
(the patch merging of a Swin transformer), and is silent where two channels of a group meet.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

if TYPE_CHECKING:
    import torch_pruning as tp

# one operation can meet a group's channels at several places of a concatenation; more is a walk in circles
_MOST_VISITS = 50


class Index(NamedTuple):
    """Place `idx` along a dimension, which holds the channel `root_idx` of the group's first layer."""

    idx: int
    root_idx: int


Handler = Callable[[nn.Module, Sequence[int]], nn.Module]  # prunes a layer at one side
Operation = tuple["tp.dependency.Node", Handler]


class Reached(NamedTuple):
    """An operation that a group's channels run through, on the side that `handler` prunes.

    `mixed`: several channels of the group meet at one place, or cannot be followed any further.
    """

    node: "tp.dependency.Node"
    handler: Handler
    indices: list[Index]
    mixed: bool = False


def slices_channels(node: "tp.dependency.Node") -> bool:
    """Does it take some of the channels by their numbers, which mean others once a channel is gone?"""
    import torch_pruning as tp

    mapped = any(dependency.index_mapping[0] is not None for dependency in node.dependencies)
    return mapped and isinstance(node.module, tp.ops._SliceOp | tp.ops._SplitOp | tp.ops._UnbindOp)


def coupled_channels(graph: "tp.DependencyGraph") -> Iterator[list[Reached]]:
    """For each convolution or linear layer not met before: what its output channels run through, itself first."""
    widest = max(side for p in graph.model.parameters() for side in p.shape)
    # Coupling is mutual: a walk from any layer that computes a group's channels finds the same group. So the outputs
    # that were met are not walked from again, depthwise convolutions among them, which only carry channels.
    met: set[nn.Module] = set()
    for module in list(graph.module2node):
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and module not in met:
            group = _merge(_walk(graph, graph.module2node[module], widest))
            met |= {r.node.module for r in group if graph.is_out_channel_pruning_fn(r.handler)}
            yield group


def _walk(graph: "tp.DependencyGraph", root: "tp.dependency.Node", widest: int) -> list[Reached]:
    """Depth first over what the outputs of `root` trigger; no layer has more than `widest` channels."""
    pruner = graph.get_pruner_of_module(root.module)
    # All channels walk together, each with its own number as `root_idx`: one walk gives the maps of the whole group.
    channels = [Index(c, c) for c in range(pruner.get_out_channels(root.module))]
    reached = [Reached(root, pruner.prune_out_channels, channels)]
    # The channels with which each operation was reached. There may be several: a dense block's concatenation meets the
    # group once for each layer that reads it, at other places each time.
    seen: dict[Operation, list[Sequence[Index]]] = {(root, pruner.prune_out_channels): [channels]}
    expanded = set()
    stack = list(reached)
    while stack:
        node, handler, indices, lost = stack.pop()
        expanded.add(node)
        if lost or slices_channels(node):
            continue  # the group is not to be narrowed, and what follows may lead in circles
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(handler):
                continue
            mapped, known = _mapped(dependency, indices)
            visits = seen.setdefault((dependency.target, dependency.handler), [])
            # Nothing left: the channels lie outside of the slice or the part of a concatenation that this leads to. A
            # visit with the same channels ends where the first one went on from there, as in the library's own walk.
            if not mapped or (dependency.target in expanded and mapped in visits):
                continue
            visits.append(mapped)
            # more places than the widest layer has channels: the map multiplies them, and would again at each turn
            lost = not known or len(visits) > _MOST_VISITS or len(mapped) > widest
            reached.append(Reached(dependency.target, dependency.handler, mapped, lost))
            stack.append(reached[-1])
    return reached


def _mapped(dependency: "tp.dependency.Dependency", indices: list[Index]) -> tuple[list[Index], bool]:
    """Where the channels are behind a dependency, or, with False, where they were: the library may lose track of them.

    (Its map of an expansion has no roots; that of an LSTM's gates has no place for the channels.)
    """
    # The library keeps two maps a dependency, either of them None: from where the channels are now to the tensor in
    # between, and from that one to the target, as for the part of a split that goes on into a concatenation.
    mapped = indices
    try:
        for index_map in dependency.index_mapping:
            mapped = mapped if index_map is None else index_map(mapped)
    except IndexError:
        return indices, False
    known = all(index.root_idx is not None for index in mapped)
    return (mapped, True) if known else (indices, False)


def _merge(reached: Sequence[Reached]) -> list[Reached]:
    """One entry an operation and side, in the order of meeting them; of two channels at one place the first counts."""
    merged: dict[Operation, dict[int, Index]] = {}
    mixed = set()
    for node, handler, indices, lost in reached:
        if lost:
            mixed.add((node, handler))
        # place -> the channel that is there; two channels at one place cannot go one without the other
        places = merged.setdefault((node, handler), {})
        for index in indices:
            if places.setdefault(index.idx, index) != index:
                mixed.add((node, handler))
    return [
        Reached(node, handler, list(places.values()), (node, handler) in mixed)
        for (node, handler), places in merged.items()
    ]
