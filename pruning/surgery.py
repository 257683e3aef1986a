"""Remove channels: the only code that changes the shape of a network."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning.groups import Group, Side, is_depthwise
from pruning.plan import PruningPlan


def apply(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """A smaller copy of `model` that keeps the channels of `plan`; `model` is not changed.

    `groups` are those of the dense architecture; `model` may be any network with the same layer names, for
    example the backbone of a detector with frozen BatchNorm. Raises ValueError for a plan of another architecture.
    """
    by_name = {g.name: g for g in groups}
    for name, width in plan.widths.items():
        if name not in by_name:
            raise ValueError(f"the plan is for {plan.arch!r} and prunes {name!r}, which this network does not have")
        if by_name[name].width != width:
            raise ValueError(f"the plan expects {width} channels in {name!r}, this network has {by_name[name].width}")
    small = copy.deepcopy(model)
    for (layer, side), gone in _removed(plan.keep, groups).items():
        _cut(small, layer, side, gone)
    return small


def mask(model: nn.Module, keep: Mapping[str, Sequence[int]], groups: Sequence[Group]) -> nn.Module:
    """A copy of `model` in which every channel that is not kept is zero in every tensor it runs through."""
    masked = copy.deepcopy(model)
    for (layer, side), gone in _removed(keep, groups).items():
        for tensor, dim in _affine_tensors(masked, layer, side):
            index = torch.tensor(sorted(gone), dtype=torch.long, device=tensor.device)
            tensor.data.index_fill_(dim, index, 0)
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
    modes = {m: m.training for m in model.modules()}
    try:
        out = model.eval()(batch)
    finally:
        for module, mode in modes.items():
            module.training = mode
    outputs = out.values() if isinstance(out, Mapping) else [out]
    return torch.cat([o.flatten() for o in outputs])


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
        setattr(parent, leaf, _kept(getattr(parent, leaf), 0, _others(gone, getattr(parent, leaf).shape[0])))
        return
    layer = model.get_submodule(name)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        _cut_weights(layer, side, _others(gone, layer.weight.shape[1 if side == "in" else 0]))
    else:
        _cut_norm(layer, name, gone)


def _others(gone: set[int], size: int) -> list[int]:
    return [i for i in range(size) if i not in gone]


def _cut_weights(layer: nn.Conv2d | nn.Linear, side: Side, index: list[int]) -> None:
    inputs = side == "in"
    layer.weight = _kept(layer.weight, 1 if inputs else 0, index)
    if not inputs and layer.bias is not None:
        layer.bias = _kept(layer.bias, 0, index)
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
        return [(getattr(parent, leaf), 0)]
    layer = model.get_submodule(name)
    if side == "in":
        return [(layer.get_parameter("weight"), 1)]
    return [(t, 0) for t in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if t is not None]
