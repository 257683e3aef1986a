"""Tells gates from sums: a layer whose outputs only multiply channels that other layers compute.

In a squeeze-excitation block (Hu et al., arXiv 1709.01507) the last layer answers one factor for each channel of what
it is computed from. A product is no sum: without the channel there is nothing to scale, so the layer loses its
outputs with the channels and has no say in which of them go.
"""

from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch_pruning as tp


N = TypeVar("N")
_PRODUCTS = ("MulBackward",)
# behind one of these a value is a share, not a signal
_SATURATING = ("SigmoidBackward", "HardsigmoidBackward", "TanhBackward", "SoftmaxBackward")


def only_gates(
    producer: "tp.dependency.Node", inside: Collection["tp.dependency.Node"], readers: Collection["tp.dependency.Node"]
) -> bool:
    """Do the outputs of `producer` reach the `readers` of its group (`inside`: its operations) only as factors?"""
    # Forward from the producer until each path ends: at a product whose factor it is, or at a layer that reads it as a
    # signal, which settles that it computes channels. A product that it is the other operand of is passed through.
    gating, seen = False, {producer}
    stack = [producer]
    while stack:
        node = stack.pop()
        for follower in node.outputs:
            if _operation(follower).startswith(_PRODUCTS) and _is_factor(node, follower):
                gating = True
            elif follower in readers:
                return False
            elif follower in inside and follower not in seen:
                seen.add(follower)
                stack.append(follower)
    return gating  # no product at all: not a gate, whatever becomes of its outputs


def _is_factor(node: "tp.dependency.Node", product: "tp.dependency.Node") -> bool:
    """Of the two operands of a product, is `node` the one computed from the other, or the only one that saturates?"""
    others = [other for other in product.inputs if other is not node]
    if not others:
        return False  # x * x, or x times a constant
    inputs = attrgetter("inputs")
    # The second case is for a gate that is computed from another part of the network than what it scales; where both
    # operands saturate, or neither does, nothing tells which is the gate, and both count as producers.
    saturates = _operation(node).startswith(_SATURATING)
    return all(depends(node, o, inputs) or (saturates and not _operation(o).startswith(_SATURATING)) for o in others)


def depends(node: N, source: N, inputs: Callable[[N], Iterable[N]]) -> bool:
    """Is `node` of a graph computed from `source`? `inputs` gives what a node is computed from directly."""
    seen, stack = {node}, [node]
    while stack:
        for before in inputs(stack.pop()):
            if before is source:
                return True
            if before not in seen:
                seen.add(before)
                stack.append(before)
    return False


def _operation(node: "tp.dependency.Node") -> str:
    return node.grad_fn.name() if hasattr(node.grad_fn, "name") else ""
