"""Coupled channel groups: which layers must lose the same channels together.

`torch_pruning.DependencyGraph` traces the network through autograd; what it found is kept here as plain data
(layer names and index maps), so that scoring, masking and surgery need neither the graph nor the same instance of
the network. A detector's backbone has the layer names of the classifier and so is pruned with the classifier's groups.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruning.graph.coupling import Index, Reached, coupled_channels, slices_channels
from pruning.graph.layers import ScatterOutputs, SelectInputs

Side = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """One dimension of one layer (or bare parameter) that a group's channels run through.

    `positions[c]` lists the indices along that dimension that belong to channel c of the group: one each for a
    convolution, H*W each for a linear layer behind a flattened feature map.
    """

    layer: str
    side: Side
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together; `name` is the first layer that produces them.

    `producers` are the convolutions and linear layers that compute the channels (depthwise ones only carry them);
    more than one means that a shortcut adds them up. `stage` counts from 0 and is -1 where the network has none.
    `fixed` says why the group must not be narrowed, or is None. `norms` pairs each normalisation layer that directly
    follows a producer with it. `apart`: several layers compute the channels, yet no shortcut of the network runs
    through them (the laterals of a detector's FPN).
    """

    name: str
    width: int
    producers: tuple[str, ...]
    members: tuple[Member, ...]
    stage: int = -1
    fixed: str | None = None
    norms: tuple[tuple[str, str], ...] = ()
    apart: bool = False

    @property
    def inner(self) -> bool:
        """Is it shared by no shortcut: computed by a single layer, or apart?"""
        return self.apart or len(self.producers) == 1


def find_groups(model: nn.Module, example: Tensor, *, stages: Sequence[str] = ()) -> list[Group]:
    """Every channel group of `model` that does not reach its output, in the order of the layers.

    `example`: an input batch (N, C, H, W) of any size that the network accepts. `stages`: module names whose
    prefix tells a layer's stage, in order. Raises ValueError for a network that cannot be traced.
    """
    names: dict = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    try:
        graph = _trace(model, example)
        groups = [_read_group(raw, graph, names, stages) for raw in coupled_channels(graph)]
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        AssertionError,
        ArithmeticError,
    ) as error:
        shape = tuple(example.shape)
        raise ValueError(f"{type(model).__name__} cannot be traced with an input of shape {shape}: {error}") from error
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    return sorted((g for g in groups if g is not None), key=lambda g: order[g.name])


def is_depthwise(layer: object) -> bool:
    """Does each output channel of this convolution see only its own input channel?"""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def _trace(model: nn.Module, example: Tensor) -> tp.DependencyGraph:
    def outputs(out: object) -> list[Tensor]:
        # x * 1 makes each output an operation of its own, so that a group that reaches it is recognised
        traced = [o * 1 for o in tp.utils.flatten_as_list(out) if o.requires_grad]
        if not traced:
            raise ValueError("its output does not depend on its parameters through differentiable operations")
        return traced

    with _traceable(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # a list: a tensor would be unpacked into one argument an image, and convolutions accept single images
        return tp.DependencyGraph().build_dependency(model, [example], output_transform=outputs, verbose=False)


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and gradients for all parameters while tracing; both restored."""
    training = {m: m.training for m in model.modules()}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for m, mode in training.items():
            m.training = mode


def _read_group(raw: list[Reached], graph: tp.DependencyGraph, names: dict, stages: Sequence[str]) -> Group | None:
    """Plain data of what the channels run through, or None when they reach the network's output."""
    root = raw[0].node.module
    width = root.out_channels if isinstance(root, nn.modules.conv._ConvNd) else root.out_features
    members, producers, norms, fixed = [], [], [], None
    for reached in raw:
        target, handler, indices, _ = reached
        if isinstance(target.module, tp.ops._OutputOp):
            return None
        fixed = fixed or _obstacle(reached, names)
        if target.module not in names:
            continue  # an operation without tensors: add, concatenate, flatten, ...
        side: Side = "out" if graph.is_out_channel_pruning_fn(handler) else "in"
        if is_depthwise(target.module):
            side = "out"  # cut once: its inputs are its outputs
        if isinstance(target.module, ScatterOutputs) or (side == "in" and isinstance(target.module, SelectInputs)):
            fixed = fixed or f"{names[target.module]} uses some channels of a trunk, by their indices"
        positions = _positions(indices, width)
        fixed = fixed or _partial(names[target.module], positions)
        member = Member(names[target.module], side, positions)
        if member not in members:
            members.append(member)
        weighted = isinstance(target.module, nn.modules.conv._ConvNd | nn.Linear)
        if side == "out" and weighted and not is_depthwise(target.module):
            producers.append(names[target.module])
            if positions != tuple((c,) for c in range(width)):
                fixed = fixed or f"channels of {names[target.module]} can only go several at a time"
        norms += _norm_pairs(target, names)
    order = {name: i for i, name in enumerate(names.values())}
    producers = sorted(set(producers), key=order.__getitem__)
    if len(members) == 1:
        fixed = fixed or "nothing reads its channels"
    stage = next((i for i, s in enumerate(stages) if producers[0].startswith(f"{s}.")), -1)
    pairs = tuple(dict.fromkeys(pair for pair in norms if pair[1] in producers))
    return Group(producers[0], width, tuple(producers), tuple(members), stage, fixed, pairs)


def _norm_pairs(node: tp.dependency.Node, names: dict) -> list[tuple[str, str]]:
    if not isinstance(node.module, nn.modules.batchnorm._BatchNorm):
        return []
    return [(names[node.module], names[before.module]) for before in node.inputs if before.module in names]


def _positions(indices: Sequence[Index], width: int) -> tuple[tuple[int, ...], ...]:
    by_channel: list[list[int]] = [[] for _ in range(width)]
    for index, root in indices:
        by_channel[root].append(index)
    return tuple(tuple(sorted(p)) for p in by_channel)


def _partial(layer: str, positions: tuple[tuple[int, ...], ...]) -> str | None:
    if len({len(p) for p in positions}) > 1:
        return f"only some of its channels reach {layer}"
    return None


def _obstacle(reached: Reached, names: dict) -> str | None:
    """Why channels that pass through here cannot be removed, if so."""
    node, module = reached.node, reached.node.module
    if isinstance(module, nn.Conv2d) and module.groups > 1 and not is_depthwise(module):
        return f"{names[module]} is a grouped convolution"
    known = nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm | nn.PReLU | nn.Parameter
    if module in names and not isinstance(module, known):
        return f"{names[module]} is a {type(module).__name__}"
    if slices_channels(node):
        return "its channels are sliced apart"
    if reached.mixed:
        return "its channels mix on their way to other layers"
    pad = getattr(node.grad_fn, "_saved_pad", None)
    # F.pad counts from the last axis: the third pair belongs to the channels of (N, C, H, W)
    if pad is not None and any(pad[4:6]):
        return "a shortcut pads its channels with zeros, so the stages that it joins differ in width"
    return None
