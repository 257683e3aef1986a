"""Which layer reads which: the flow of channels between layers with weights, activations and pooling looked through."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node, Tracer

# modules and functions that leave each channel where it is
_MODULES = (nn.Identity, nn.Flatten, nn.PReLU)
_MODULE_FILES = tuple(f"torch.nn.modules.{name}" for name in ("activation", "pooling", "dropout"))
_MIXING = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU, nn.MultiheadAttention)
_FUNCTIONS: frozenset[Any] = frozenset(
    {torch.relu, torch.relu_, torch.flatten, torch.mean, torch.sigmoid, torch.tanh}
    | {F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardtanh, F.dropout}
    | {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
)
_METHODS = frozenset({"relu", "relu_", "flatten", "view", "reshape", "mean", "contiguous", "clone", "sigmoid", "tanh"})
_SHAPE_QUERIES = frozenset({"size", "dim"})


@dataclass(frozen=True)
class Flow:
    """`readers[layer]`: what reads its output; `sources[layer]`: what it reads.

    Both hold names of layers with weights (or running statistics), and None for anything else: a sum, a
    concatenation, the network's input or output. `outputs`: layers whose output is one of the network's.
    """

    readers: Mapping[str, frozenset[str | None]]
    sources: Mapping[str, frozenset[str | None]]
    outputs: frozenset[str | None]

    def only_reader(self, layer: str) -> str | None:
        """The one layer that reads this layer's output, if nothing else does and it reads nothing else."""
        readers = self.readers.get(layer, frozenset())
        reader = next(iter(readers)) if len(readers) == 1 else None
        return reader if reader is not None and self.sources[reader] == {layer} else None


def trace_flow(model: nn.Module) -> Flow:
    """The flow of `model`, by torch.fx; ValueError for a network whose forward pass depends on its values."""
    try:
        graph = _LeafTracer().trace(model)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"the layers of {type(model).__name__} cannot be followed by torch.fx: {error}") from error
    modules = dict(model.named_modules())
    edges, outputs = set(), set()
    for node in graph.nodes:
        if _looked_through(node, modules) or _asks_shape(node):
            continue
        for read in node.all_input_nodes:
            source = _layer(_origin(read, modules), modules)
            edges.add((source, _layer(node, modules)))
            if node.op == "output":
                outputs.add(source)
    layers = {name for pair in edges for name in pair if name is not None}
    return Flow(
        {layer: frozenset(reader for source, reader in edges if source == layer) for layer in layers},
        {layer: frozenset(source for source, reader in edges if reader == layer) for layer in layers},
        frozenset(outputs),
    )


class _LeafTracer(Tracer):
    """Looks into every module that has children, and into no other."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def _layer(node: Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The name of the layer with weights or statistics that this node calls."""
    if node.op != "call_module" or _looked_through(node, modules):
        return None
    has_tensors = any(True for _ in modules[str(node.target)].state_dict())
    return str(node.target) if has_tensors else None


def _origin(node: Node, modules: Mapping[str, nn.Module]) -> Node:
    while _looked_through(node, modules):
        node = node.all_input_nodes[0]
    return node


def _looked_through(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    if not node.all_input_nodes:
        return False
    if node.op == "call_module":
        module = modules[str(node.target)]
        known = isinstance(module, _MODULES) or type(module).__module__ in _MODULE_FILES
        return known and not isinstance(module, _MIXING)
    functions = _FUNCTIONS if node.op == "call_function" else _METHODS if node.op == "call_method" else ()
    return node.target in functions


def _asks_shape(node: Node) -> bool:
    """Does it compute a size, or take an entry of one, rather than read the channels?"""
    if node.op == "call_function" and node.target is operator.getitem:
        return _asks_shape(node.all_input_nodes[0])
    return node.target in (_SHAPE_QUERIES if node.op == "call_method" else (getattr,))
