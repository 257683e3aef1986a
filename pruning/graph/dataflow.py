"""Which layer reads which: the flow of channels between layers with weights, activations and pooling looked through."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node, Tracer

from pruning.errors import Refusal
from pruning.graph.gates import depends
from pruning.graph.layers import is_norm
from pruning.graph.tracing import remembers_nothing

# modules and functions that leave each channel where it is
_MODULES = (nn.Identity, nn.Flatten, nn.PReLU)
_MODULE_FILES = tuple(f"torch.nn.modules.{name}" for name in ("activation", "pooling", "dropout"))
_MIXING = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU, nn.MultiheadAttention)
_FUNCTIONS: frozenset[object] = frozenset(
    {torch.relu, torch.relu_, torch.flatten, torch.mean, torch.sigmoid, torch.tanh}
    | {F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardtanh, F.dropout}
    | {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d}
)
_METHODS = frozenset({"relu", "relu_", "flatten", "view", "reshape", "mean", "contiguous", "clone", "sigmoid", "tanh"})
_SHAPE_QUERIES = frozenset({"size", "dim"})
_PRODUCTS: frozenset[object] = frozenset({operator.mul, operator.imul, torch.mul, "mul", "mul_"})
_SUMS: frozenset[object] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})


@dataclass(frozen=True)
class Flow:
    """`readers[layer]`: what reads its output; `sources[layer]`: what it reads.

    Both hold names of layers with weights (or running statistics), and None for anything else: a sum, a
    concatenation, the network's input or output. `outputs`: layers whose output is one of the network's.
    `sums`: does it add up what two of its layers compute, as shortcuts do?
    """

    readers: Mapping[str, frozenset[str | None]]
    sources: Mapping[str, frozenset[str | None]]
    outputs: frozenset[str | None]
    sums: bool = False

    def only_reader(self, layer: str) -> str | None:
        """The one layer that reads this layer's output, if nothing else does and it reads nothing else."""
        readers = self.readers.get(layer, frozenset())
        reader = next(iter(readers)) if len(readers) == 1 else None
        return reader if reader is not None and self.sources[reader] == {layer} else None


def trace_flow(model: nn.Module) -> Flow:
    """The flow of `model`, by torch.fx; ValueError for a network whose forward pass depends on its values."""
    try:
        with remembers_nothing(model):
            graph = LayerTracer().trace(model)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise Refusal(f"the layers of {type(model).__name__} cannot be followed by torch.fx: {error}") from error
    modules = dict(model.named_modules())
    # (source, reader) pairs of layers, None for what is none. Nodes that hand channels on (activations, pooling) are
    # looked through: whoever reads them reads the layer that they go back to.
    edges, outputs = set(), set()
    for node in graph.nodes:
        if _handed_on(node, modules) or _asks_shape(node):
            continue
        for read in node.all_input_nodes:
            source = _layer(_origin(read, modules), modules)
            # a sum or a concatenation is a reader None here and a source None for what reads it: the chain ends there
            edges.add((source, _layer(node, modules)))
            if node.op == "output":
                outputs.add(source)
    layers = {name for pair in edges for name in pair if name is not None}
    return Flow(
        {layer: frozenset(reader for source, reader in edges if source == layer) for layer in layers},
        {layer: frozenset(source for source, reader in edges if reader == layer) for layer in layers},
        frozenset(outputs),
        any(_adds(node) for node in graph.nodes),
    )


class LayerTracer(Tracer):
    """A module without children is one layer, and so is a normalisation, whatever it wraps."""

    # By itself torch.fx takes every module of torch.nn for a leaf, but for a Sequential, and looks into a layer of the
    # user's own, whose weights would then be operands without a layer.

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_norm(m) or not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def _layer(node: Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The name of the layer with weights or statistics that this node calls."""
    if node.op != "call_module" or _handed_on(node, modules):
        return None
    has_tensors = any(True for _ in modules[str(node.target)].state_dict())
    return str(node.target) if has_tensors else None


def _origin(node: Node, modules: Mapping[str, nn.Module]) -> Node:
    while (before := _handed_on(node, modules)) is not None:
        node = before
    return node


def _handed_on(node: Node, modules: Mapping[str, nn.Module]) -> Node | None:
    """The input whose channels this node hands on, each at its place; None where it does something else."""
    # Only what is known to do so counts. An unknown operation ends a chain, which costs a place to prune; looking
    # through one that moves channels would pair scales with the channels of others.
    if not node.all_input_nodes:
        return None
    if node.op == "call_module":
        module = modules[str(node.target)]
        known = isinstance(module, _MODULES) or type(module).__module__ in _MODULE_FILES
        return node.all_input_nodes[0] if known and not isinstance(module, _MIXING) else None
    functions = _FUNCTIONS if node.op == "call_function" else _METHODS if node.op == "call_method" else ()
    return node.all_input_nodes[0] if node.target in functions else _gated(node)


def _gated(node: Node) -> Node | None:
    """What a product scales, where the other factor is computed from it, as in squeeze-excitation blocks."""
    if node.target not in _PRODUCTS or len(node.args) != 2:
        return None
    a, b = node.args
    if not (isinstance(a, Node) and isinstance(b, Node)):
        return None
    inputs = attrgetter("all_input_nodes")
    # x * gate(x) has the channels of x, each scaled. Of two factors that do not depend on each other (a bilinear
    # product) neither is the other's gate.
    return a if depends(b, a, inputs) else b if depends(a, b, inputs) else None


def _adds(node: Node) -> bool:
    """Is it the sum of two tensors that layers compute? (Not of sizes, nor of a tensor and a parameter.)"""
    if node.target not in _SUMS:
        return False
    parts = [part for part in node.args[:2] if isinstance(part, Node)]
    return len(parts) == 2 and not any(_asks_shape(part) or part.op == "get_attr" for part in parts)


def _asks_shape(node: Node) -> bool:
    """Does it compute a size, or take an entry of one, rather than read the channels?"""
    if node.op == "call_function" and node.target is operator.getitem:
        return _asks_shape(node.all_input_nodes[0])
    return node.target in (_SHAPE_QUERIES if node.op == "call_method" else (getattr,))
