"""A network's passes over the calibration batches, each held where the next layers to be looked at begin.

Layers are pruned one after another, in forward order, since each choice changes what comes behind it, and nothing
before it. So each batch is held at the last point that no later choice moves, is taken from there as far as the layers
that are asked for, and no further. A network is taken apart by torch.fx, into layers and whole residual blocks; one
that cannot be is run from its input each time, and only its end is spared.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from pruning.errors import Refusal
from pruning.graph.blocks import is_residual_block
from pruning.graph.dataflow import LayerTracer
from pruning.graph.tracing import remembers_nothing
from pruning.modes import evaluation_mode
from pruning.reconstruct.responses import Calibration, Hook, batch_losses, evaluating, hooked

MOST_HELD = 2**31
"""Bytes of activations that are held for one network; of the batches beyond, those nearer to the input are."""

Values = dict[fx.Node, Any]


class _Enough(Exception):
    """All that was asked of a pass has been seen."""


@dataclass
class _Call:
    """A batch in the network: the next step, the values that it and those behind it read, runs of each layer."""

    step: int
    values: Values
    runs: Counter[str]


class Passes:
    """`model` on the batches of `calibration`, which is run in full once, to learn what the network is given.

    `beside`: the passes of another network of the same layers, whose inputs are taken while they are held.
    The network's weights may change between two rounds of `observe`, but only of the layers that the first of them
    looked at, and of those behind; after any other change `forget` is to be called.
    """

    def __init__(self, model: nn.Module, calibration: Calibration, beside: "Passes | None" = None):
        self.model = model
        self._calibration = calibration
        self._beside = beside
        self._steps = fx.Interpreter(_apart(model))
        self._nodes = list(self._steps.graph.nodes)
        self._calls: list[_Call] = []

    def forget(self) -> None:
        """All batches start from the network's input again, and the calibration is run anew."""
        self._calls = []

    def observe(self, hooks: Mapping[str, Hook]) -> Iterator[None]:
        """For each batch, as it is asked for: call `hooks[layer]` at every pass through that layer, in evaluation mode.

        Raises ValueError when the data does not fit the network, or does not reach one of the layers.
        """
        layers = {self.model.get_submodule(name) for name in hooks}
        first = next((i for i, node in enumerate(self._nodes) if layers & set(self._modules(node))), 0)
        if any(call.step > first for call in self._calls):  # layers before those of the last round
            self.forget()
        if not self._calls:
            self._calls = self._as_beside() or self._given()
        missed = sorted(name for name in hooks if not any(call.runs[name] for call in self._calls))
        if missed:
            raise Refusal(f"the calibration ran no batch through {', '.join(missed)} of {type(self.model).__name__}")
        return (self._run(call, hooks, first) for call in self._calls)

    @torch.no_grad()
    def _run(self, call: _Call, hooks: Mapping[str, Hook], first: int) -> None:
        """Take one batch as far as the hooked layers, and hold it at the step `first`."""
        left = Counter({name: call.runs[name] for name in hooks})

        def counted(name: str, hook: Hook) -> Hook:
            def act(layer: nn.Module, x: Tensor, output: Tensor) -> None:
                hook(layer, x, output)
                left[name] -= 1
                if not any(left.values()):
                    raise _Enough

            return act

        acts = {name: counted(name, hook) for name, hook in hooks.items()}
        values = _copied(call.values)
        with evaluation_mode(self.model), hooked(self.model, acts), suppress(_Enough):
            for step in range(call.step, len(self._nodes)):
                if step == first > call.step and self._may_hold(call, values):
                    call.step, call.values = step, values
                    values = _copied(values)
                self._steps.env = values
                values[self._nodes[step]] = self._steps.run_node(self._nodes[step])
                for spent in self._steps.user_to_last_uses.get(self._nodes[step], ()):
                    del values[spent]

    def _may_hold(self, call: _Call, values: Values) -> bool:
        others = sum(_size(other.values) for other in self._calls if other is not call)
        return _size(values) <= max(_size(call.values), MOST_HELD - others)

    def _modules(self, node: fx.Node) -> Iterator[nn.Module]:
        return self._steps.submodules[str(node.target)].modules() if node.op == "call_module" else iter(())

    def _as_beside(self) -> list[_Call]:
        """The batches of the network beside this one while they are at its input."""
        calls = [] if self._beside is None else self._beside._calls
        if any(call.step > 1 for call in calls):
            return []
        return [_Call(1, {self._nodes[0]: x}, call.runs) for call in calls for x in call.values.values()]

    def _given(self) -> list[_Call]:
        """The network's inputs, by running the calibration; how often each layer ran for it is counted on the way."""
        calls: list[_Call] = []
        outside: Counter[str] = Counter()
        counts = outside

        def enter(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal counts
            (x,) = (*args, *kwargs.values())
            counts = Counter()
            calls.append(_Call(1, {self._nodes[0]: x}, counts))

        def leave(network: nn.Module, args: tuple[Any, ...], output: object) -> None:
            nonlocal counts
            counts = outside

        def count(name: str) -> Any:
            return lambda *_: counts.update([name])

        handles = [layer.register_forward_hook(count(name)) for name, layer in self.model.named_modules() if name]
        handles += [self.model.register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [self.model.register_forward_hook(leave)]
        try:
            with evaluating(self.model), torch.no_grad():
                for _ in batch_losses(self._calibration, self.model):
                    pass
        except torch.OutOfMemoryError:
            raise  # a RuntimeError too, but not one of data that does not fit
        except RuntimeError as error:
            raise Refusal(f"the calibration data does not fit {type(self.model).__name__}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
        if outside and not calls:
            raise Refusal("the calibration must call the network it is given, not a part of it")
        return calls


class _StepTracer(LayerTracer):
    """A residual block is one step: what happens at its end is asked by its own name."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_residual_block(m) or super().is_leaf_module(m, module_qualified_name)


def _apart(model: nn.Module) -> fx.GraphModule:
    """The network in steps, on the same layers; in a single one if torch.fx cannot follow it."""
    try:
        with evaluation_mode(model), remembers_nothing(model):
            apart = fx.GraphModule(model, _StepTracer().trace(model))
        if sum(node.op == "placeholder" for node in apart.graph.nodes) == 1:
            return apart
    except Exception:  # of any class: a forward pass is its author's code, and meets what stands for a tensor
        pass
    graph = fx.Graph()
    graph.output(graph.call_module("network", (graph.placeholder("x"),)))
    return fx.GraphModule({"network": model}, graph)


def _copied(values: Values) -> Values:
    """The same values in memory of their own, since layers may work in place; what shares memory still does."""
    return dict(zip(values, copy.deepcopy(list(values.values())), strict=True))


def _size(values: Values) -> int:
    """Bytes of the tensors, each memory counted once."""
    storages = [leaf.untyped_storage() for leaf in tree_leaves(list(values.values())) if isinstance(leaf, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
