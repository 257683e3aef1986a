"""Remove channels: the only code that changes the shape of a network."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning.graph.blocks import branch_end, drop_branch
from pruning.graph.layers import ScatterOutputs, channel_axis, is_depthwise, scatter_outputs, select_inputs
from pruning.graph.members import Group, Side
from pruning.modes import evaluation_mode
from pruning.plan import PruningPlan


def apply(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """A smaller copy of `model` that keeps what `plan` keeps; `model` is not changed.

    `groups` are those of the dense architecture; `model` may be any network with the same layer names, for
    example the backbone of a detector with frozen BatchNorm. Raises ValueError for a plan of another architecture.
    """
    _check_widths(plan, groups)
    small = copy.deepcopy(model)
    for block in plan.drop:
        drop_branch(small, block)
    left = {name for name, _ in [*small.named_modules(), *small.named_parameters()]}
    removed = _removed(plan.keep, groups)
    for (layer, side), gone in removed.items():
        if layer in left or not layer.startswith(tuple(f"{block}." for block in plan.drop)):
            _cut(small, layer, side, gone)
    for name, index in plan.select.items():
        _select(small, name, index, removed.get((name, "in"), set()))
    for name, index in plan.scatter.items():
        _scatter(small, name, index, removed.get((name, "out"), set()), groups)
    return small


def mask(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """A copy of `model`, in its dense shape, in which all that `plan` removes is zero: what `apply` must equal.

    A removed channel is zero in every tensor that it runs through, an input that is not selected in the kernels that
    read it, a dropped branch in the layer that ends it.
    """
    masked = copy.deepcopy(model)
    zeros = _removed(plan.keep, groups)
    for name, index in plan.select.items():
        zeros.setdefault((name, "in"), set()).update(_others(set(index), _size(masked, name, 1)))
    for name, index in plan.scatter.items():
        for layer in {name, _producer_of(name, groups)}:
            zeros.setdefault((layer, "out"), set()).update(_others(set(index), _size(masked, layer, 0)))
    for block in plan.drop:
        last = branch_end(masked, block)
        zeros[last, "out"] = set(range(_size(masked, last, 0)))
    for (layer, side), gone in zeros.items():
        for tensor, dim in _affine_tensors(masked, layer, side):
            where = torch.tensor(sorted(gone), dtype=torch.long, device=tensor.device)
            tensor.data.index_fill_(dim, where, 0)
    return masked


def largest_difference(a: nn.Module, b: nn.Module, batch: Tensor) -> float:
    """max |a(x) - b(x)| relative to max |a(x)|, in evaluation mode on `batch`; modes are restored."""
    with torch.no_grad():
        out_a, out_b = _evaluate(a, batch), _evaluate(b, batch)
    scale = max(float(out_a.abs().max()), 1e-6)
    return float((out_a - out_b).abs().max()) / scale


def check_masked_equals_small(masked: nn.Module, small: nn.Module, batch: Tensor, *, tolerance: float = 1e-3) -> float:
    """The largest relative difference of the two networks' outputs; RuntimeError above `tolerance`."""
    difference = largest_difference(masked, small, batch)
    if not difference <= tolerance:  # also catches NaN
        raise RuntimeError(
            f"the pruned network differs from the masked dense one by {difference:.2e} of its largest output"
            f" (allowed {tolerance:.0e}): the surgery is wrong for this architecture, nothing was saved"
        )
    return difference


def _evaluate(model: nn.Module, batch: Tensor) -> Tensor:
    with evaluation_mode(model):
        out = model(batch)
    outputs = out.values() if isinstance(out, Mapping) else [out]
    return torch.cat([o.flatten() for o in outputs])


def _check_widths(plan: PruningPlan, groups: Sequence[Group]) -> None:
    by_name = {g.name: g for g in groups}
    for name, width in plan.widths.items():
        if name not in by_name:
            raise ValueError(f"the plan is for {plan.arch!r} and prunes {name!r}, which this network does not have")
        if by_name[name].width != width:
            raise ValueError(f"the plan expects {width} channels in {name!r}, this network has {by_name[name].width}")


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"the plan names {name!r}, which {type(model).__name__} does not have") from error


def _size(model: nn.Module, name: str, dim: int) -> int:
    weight = getattr(_layer(model, name), "weight", None)  # a frozen BatchNorm has it as a buffer
    if weight is None or weight.ndim <= dim:
        raise ValueError(f"the plan names {name!r}, which has no weight with a dimension {dim}")
    return int(weight.shape[dim])


def _producer_of(name: str, groups: Sequence[Group]) -> str:
    """The convolution whose outputs a layer normalises; the layer itself where it is a convolution."""
    for group in groups:
        if name in group.producers:
            return name
        for norm, producer in group.norms:
            if norm == name:
                return producer
    raise ValueError(f"{name!r} cannot scatter its outputs: it neither computes channels nor normalises a layer's")


def _removed(keep: Mapping[str, Sequence[int]], groups: Sequence[Group]) -> dict[tuple[str, Side], set[int]]:
    """Dense indices to remove by layer and side, over all groups: concatenations let several meet in one layer."""
    removed: dict[tuple[str, Side], set[int]] = {}
    for group in groups:
        for c in sorted(set(range(group.width)) - set(keep.get(group.name, range(group.width)))):
            for member in group.members:
                removed.setdefault((member.layer, member.side), set()).update(member.positions[c])
    return removed


def _cut(model: nn.Module, name: str, side: Side, gone: set[int]) -> None:
    """Remove the indices `gone` along one dimension of a layer, or of a bare parameter such as a layer scale."""
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner)
    if leaf in dict(parent.named_parameters(recurse=False)):
        parameter, axis = getattr(parent, leaf), channel_axis(getattr(parent, leaf))
        setattr(parent, leaf, _kept(parameter, axis, _others(gone, parameter.shape[axis])))
        return
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        _cut_weights(layer, side, _others(gone, layer.weight.shape[1 if side == "in" else 0]))
    else:
        _cut_norm(layer, name, gone)


def _select(model: nn.Module, name: str, inputs: Sequence[int], gone: set[int]) -> None:
    """Leave a layer only the dense input channels `inputs`; `gone` are those that nothing computes any more."""
    layer = _layer(model, name)
    if not isinstance(layer, nn.Conv2d | nn.Linear) or getattr(layer, "groups", 1) > 1:
        raise ValueError(f"{name!r} cannot select its inputs: it is no linear layer or ungrouped convolution")
    present = _others(gone, layer.weight.shape[1] + len(gone))
    positions = _positions_of(name, inputs, present)
    _cut_weights(layer, "in", positions)
    select_inputs(layer, positions)


def _scatter(model: nn.Module, name: str, outputs: Sequence[int], gone: set[int], groups: Sequence[Group]) -> None:
    """Leave a layer only the dense output channels `outputs`, in a trunk that lost only `gone`."""
    layer, producer = _layer(model, name), _producer_of(name, groups)
    if isinstance(layer, ScatterOutputs):
        raise ValueError(f"{name!r} scatters its outputs already: prune the dense network")
    width = _size(model, name, 0)
    kept = _positions_of(name, outputs, _others(gone, width + len(gone)))
    for part in dict.fromkeys((producer, name)):
        _cut(model, part, "out", set(_others(set(kept), width)))
    scatter_outputs(layer, kept, width)


def _positions_of(name: str, indices: Sequence[int], present: list[int]) -> list[int]:
    """Where the dense channels `indices` are among those that are `present`."""
    missing = sorted(set(indices) - set(present))
    if missing:
        raise ValueError(f"{name!r} is to use channels {missing[:8]}, which are removed or not among {len(present)}")
    where = {c: i for i, c in enumerate(present)}
    return [where[c] for c in indices]


def _others(gone: set[int], size: int) -> list[int]:
    return [i for i in range(size) if i not in gone]


def _cut_weights(layer: nn.Conv2d | nn.Linear, side: Side, index: list[int]) -> None:
    inputs = side == "in"
    layer.weight = _kept(layer.weight, 1 if inputs else 0, index)
    for name, own in [] if inputs else list(layer.named_parameters(recurse=False)):
        if name != "weight" and own.numel() > 1:  # the bias; a gain (O, 1, 1, 1) of timm's standardised convolutions
            setattr(layer, name, _kept(own, 0, index))
    if isinstance(layer, nn.Linear):
        setattr(layer, "in_features" if inputs else "out_features", len(index))
        return
    depthwise = is_depthwise(layer)  # asked before the widths change
    setattr(layer, "in_channels" if inputs else "out_channels", len(index))
    if depthwise:
        layer.in_channels = layer.groups = len(index)


def _cut_norm(layer: nn.Module, name: str, gone: set[int]) -> None:
    """Any layer whose tensors are all (C,): BatchNorm, frozen BatchNorm, PReLU."""
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
        raise ValueError(f"{name} is a {type(layer).__name__}: it mixes its channels, so none can be removed alone")
    for key, tensor in tensors:
        if tensor.ndim != 1 or tensor.numel() == 1:
            continue  # num_batches_tracked, or the one slope of a PReLU
        index = _others(gone, tensor.numel())
        setattr(layer, key, _kept(tensor, 0, index) if isinstance(tensor, nn.Parameter) else tensor[index].clone())
        for attribute in ("num_features", "num_parameters"):
            if hasattr(layer, attribute):
                setattr(layer, attribute, len(index))


def _kept(parameter: Tensor, dim: int, index: list[int]) -> nn.Parameter:
    kept = parameter.data.index_select(dim, torch.tensor(index, dtype=torch.long, device=parameter.device)).clone()
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def _affine_tensors(model: nn.Module, name: str, side: Side) -> list[tuple[Tensor, int]]:
    """The weights and biases (not running statistics) along one dimension of a layer, with that dimension."""
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner)
    if leaf in dict(parent.named_parameters(recurse=False)):
        return [(getattr(parent, leaf), channel_axis(getattr(parent, leaf)))]
    layer = model.get_submodule(name)
    if side == "in":
        return [(layer.get_parameter("weight"), 1)]
    tensors = [getattr(layer, "weight", None), getattr(layer, "bias", None)]
    return [(t, 0) for t in tensors if t is not None and (t.numel() > 1 or not isinstance(layer, nn.PReLU))]
