"""Remove channels: the only code that changes the shape of a network."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning.groups import Group, Member, is_depthwise
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
    for name, keep in plan.keep.items():
        for member in by_name[name].members:
            _cut(small, member, [i for c in keep for i in member.positions[c]])
    return small


def mask(model: nn.Module, keep: Mapping[str, Sequence[int]], groups: Sequence[Group]) -> nn.Module:
    """A copy of `model` in which every channel that is not kept is zero in every tensor it runs through."""
    masked = copy.deepcopy(model)
    for group in groups:
        if group.name not in keep:
            continue
        removed = sorted(set(range(group.width)) - set(keep[group.name]))
        for member in group.members:
            index = [i for c in removed for i in member.positions[c]]
            for tensor, dim in _affine_tensors(masked, member):
                tensor.data.index_fill_(dim, torch.tensor(index, dtype=torch.long, device=tensor.device), 0)
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


def _cut(model: nn.Module, member: Member, index: list[int]) -> None:
    """Keep `index` along the member's dimension of one layer."""
    owner, _, leaf = member.layer.rpartition(".")
    if leaf in dict(model.get_submodule(owner).named_parameters(recurse=False)):  # a bare parameter, as a layer scale
        parent = model.get_submodule(owner)
        setattr(parent, leaf, _kept(getattr(parent, leaf), 0, index))
        return
    layer = model.get_submodule(member.layer)
    if isinstance(layer, nn.Conv2d | nn.Linear):
        _cut_weights(layer, member.side, index)
    else:
        _cut_norm(layer, member.layer, index)


def _cut_weights(layer: nn.Conv2d | nn.Linear, side: str, index: list[int]) -> None:
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


def _cut_norm(layer: nn.Module, name: str, index: list[int]) -> None:
    """Any layer whose tensors are all (C,): BatchNorm, frozen BatchNorm, LayerNorm, PReLU."""
    if isinstance(layer, nn.GroupNorm):
        raise ValueError(f"{name} is a GroupNorm: its groups do not survive the removal of single channels")
    for key, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        if tensor.ndim == 1 and tensor.numel() > 1:
            if isinstance(tensor, nn.Parameter):
                setattr(layer, key, _kept(tensor, 0, index))
            else:
                setattr(layer, key, tensor[index].clone())
    for attribute in ("num_features", "num_parameters"):
        if hasattr(layer, attribute):
            setattr(layer, attribute, len(index))
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (len(index),)


def _kept(parameter: nn.Parameter, dim: int, index: list[int]) -> nn.Parameter:
    kept = parameter.data.index_select(dim, torch.tensor(index, dtype=torch.long, device=parameter.device)).clone()
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def _affine_tensors(model: nn.Module, member: Member) -> list[tuple[Tensor, int]]:
    """The weights and biases (not running statistics) along the member's dimension."""
    owner, _, leaf = member.layer.rpartition(".")
    if leaf in dict(model.get_submodule(owner).named_parameters(recurse=False)):
        return [(getattr(model.get_submodule(owner), leaf), 0)]
    layer = model.get_submodule(member.layer)
    if member.side == "in":
        return [(layer.weight, 1)]
    return [(t, 0) for t in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if t is not None]
