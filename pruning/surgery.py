"""Remove channels: the only code that changes the shape of a network."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning.errors import Failure, Refusal
from pruning.graph.blocks import branch_end, drop_branch
from pruning.graph.dataflow import trace_flow
from pruning.graph.layers import ScatterOutputs, channel_axis, is_depthwise, scatter_outputs, select_inputs
from pruning.graph.members import Group, Side
from pruning.modes import evaluation_mode
from pruning.plan import PruningPlan, removed_positions

_NO_DOUBT = 1e-5  # a relative difference that float32 rounding explains without amplification


def apply(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """A smaller copy of `model` that keeps what `plan` keeps; `model` is not changed.

    `groups` are those of the dense architecture; `model` may be any network with the same layer names, for
    example the backbone of a detector with frozen BatchNorm. Raises ValueError for a plan of another architecture.
    """
    _check_widths(plan, groups)
    small = copy.deepcopy(model)
    # Branches go first. Their layers are still members of the dense network's groups, and are passed over below; what
    # stays of such a block (the projection on its shortcut) is cut like any other layer. A name that is neither there
    # nor below a dropped block is of another network, and `_layer` or PyTorch says so.
    for block in plan.drop:
        drop_branch(small, block)
    left = {name for name, _ in [*small.named_modules(), *small.named_parameters()]}
    dropped = tuple(f"{block}." for block in plan.drop)
    # All indices are those of the dense network. So a layer loses what several groups take from one of its sides
    # (behind a concatenation) in one cut: a second one would find its channels renumbered.
    removed = removed_positions(plan.keep, groups)
    for (layer, side), gone in removed.items():
        if layer in left or not layer.startswith(dropped):
            _cut(small, layer, side, gone)
    for name, index in plan.select.items():
        if name in left or not name.startswith(dropped):
            _select(small, name, index, removed.get((name, "in"), set()))
    for name, index in plan.scatter.items():
        if name in left or not name.startswith(dropped):
            _scatter(small, name, index, removed.get((name, "out"), set()), groups)
    return small


def mask(model: nn.Module, plan: PruningPlan, groups: Sequence[Group]) -> nn.Module:
    """A copy of `model`, in its dense shape, in which all that `plan` removes is zero: what `apply` must equal.

    A removed channel is zero in every tensor that it runs through, an input that is not selected in the kernels that
    read it, a dropped branch in the layer that ends it.
    """
    # Running statistics stay: with gamma and beta at zero a BatchNorm answers zero whatever they are.
    masked = copy.deepcopy(model)
    zeros = removed_positions(plan.keep, groups)
    for name, index in plan.select.items():
        zeros.setdefault((name, "in"), set()).update(_others(set(index), _size(masked, name, 1)))
    for name, index in plan.scatter.items():
        kept = _scattered(masked, name, index)  # a layer that scatters already numbers its own channels
        for layer in {name, producer_of(name, groups, masked)}:
            zeros.setdefault((layer, "out"), set()).update(_others(set(kept), _size(masked, layer, 0)))
    for block in plan.drop:
        last = branch_end(masked, block)
        zeros[last, "out"] = set(range(_size(masked, last, 0)))
    for (layer, side), gone in zeros.items():
        for tensor, dim in affine_tensors(masked, layer, side):
            where = torch.tensor(sorted(gone), dtype=torch.long, device=tensor.device)
            tensor.data.index_fill_(dim, where, 0)
    return masked


def check_masked_equals_small(
    masked: nn.Module, small: nn.Module, batch: Tensor, *, tolerance: float = 1e-3
) -> float | None:
    """The largest relative difference of the two networks' outputs; RuntimeError above `tolerance`.

    Where float32 leaves a doubt, float64 decides: deep networks amplify its rounding. None where the outputs of the
    dense network are one number, or the same for every image of several: they would not show a wrong cut.
    """
    with torch.no_grad():
        dense, cut = _evaluate(masked, batch), _evaluate(small, batch)
        if not _relative(dense, cut) <= _NO_DOUBT:  # also catches NaN
            dense, cut = (_evaluate(copy.deepcopy(m).cpu().double(), batch.cpu().double()) for m in (masked, small))
    if not bool(dense.isfinite().all()):
        raise Failure(
            "the masked dense network's own outputs are not finite, so the cut cannot be checked, nothing was saved:"
            " look for weights that are NaN or too large"
        )
    difference = _relative(dense, cut)
    if not difference <= tolerance:
        raise Failure(
            f"the pruned network differs from the masked dense one by {difference:.2e} of its largest output"
            f" (allowed {tolerance:.0e}, in float64): the surgery is wrong for this architecture, nothing was saved"
        )
    return None if _tells_nothing(dense, len(batch)) else difference


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-6)


def _tells_nothing(outputs: Tensor, n_images: int) -> bool:
    """Are these outputs (flat, float32 or float64) constant, up to rounding?"""
    # A network that ends in a constant (every weight of the classifier zero, a dead ReLU) agrees with any cut of
    # itself.
    slack = 1e-6 * max(float(outputs.abs().max()), 1e-6)
    if outputs.numel() > 1 and float(outputs.max() - outputs.min()) <= slack:
        return True
    by_image = outputs.view(n_images, -1) if outputs.numel() % n_images == 0 else outputs[None]
    return n_images > 1 and float((by_image - by_image[:1]).abs().max()) <= slack


def _evaluate(model: nn.Module, batch: Tensor) -> Tensor:
    with evaluation_mode(model):
        out = model(batch)
    outputs = out.values() if isinstance(out, Mapping) else [out]
    return torch.cat([o.flatten() for o in outputs])


def _check_widths(plan: PruningPlan, groups: Sequence[Group]) -> None:
    by_name = {g.name: g for g in groups}
    for name, width in plan.widths.items():
        if name not in by_name:
            raise Refusal(f"the plan is for {plan.arch!r} and prunes {name!r}, which this network does not have")
        if by_name[name].width != width:
            raise Refusal(f"the plan expects {width} channels in {name!r}, this network has {by_name[name].width}")


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise Refusal(f"the plan names {name!r}, which {type(model).__name__} does not have") from error


def _size(model: nn.Module, name: str, dim: int) -> int:
    weight = getattr(_layer(model, name), "weight", None)  # a frozen BatchNorm has it as a buffer
    if weight is None or weight.ndim <= dim:
        raise Refusal(f"the plan names {name!r}, which has no weight with a dimension {dim}")
    return int(weight.shape[dim])


def producer_of(name: str, groups: Sequence[Group], model: nn.Module) -> str:
    """The convolution whose outputs a layer normalises; the layer itself where it is a convolution."""
    layer = _layer(model, name)
    if isinstance(layer, ScatterOutputs) and not isinstance(layer, nn.Conv2d | nn.Linear):
        (source,) = trace_flow(model).sources[name]  # no group pairs a norm that scatters with what it normalises
        return str(source)
    for group in groups:
        if name in group.producers:
            return name
        for norm, producer in group.norms:
            if norm == name:
                return producer
    raise Refusal(f"{name!r} cannot scatter its outputs: it neither computes channels nor normalises a layer's")


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
        raise Refusal(f"{name!r} cannot select its inputs: it is no linear layer or ungrouped convolution")
    # It has lost `gone` to the groups that it reads: its input i is now the dense channel present[i].
    present = _others(gone, layer.weight.shape[1] + len(gone))
    positions = _positions_of(name, inputs, present)
    _cut_weights(layer, "in", positions)
    select_inputs(layer, positions)


def _scatter(model: nn.Module, name: str, outputs: Sequence[int], gone: set[int], groups: Sequence[Group]) -> None:
    """Leave a layer only the dense output channels `outputs`, in a trunk that lost only `gone`."""
    layer, producer = _layer(model, name), producer_of(name, groups, model)
    width = _size(model, name, 0)
    before = layer.outputs if isinstance(layer, ScatterOutputs) else None  # it was narrowed once already
    # Either way `kept` are places among its own present outputs. A trunk that something scatters into is never narrowed
    # afterwards (`find_groups` fixes it), so the numbers in `before` hold.
    if before is not None:
        kept = _scattered(model, name, outputs)
    else:
        kept = _positions_of(name, outputs, _others(gone, width + len(gone)))
    for part in dict.fromkeys((producer, name)):  # one layer, where no normalisation follows the convolution
        _cut(model, part, "out", set(_others(set(kept), width)))
    if before is not None:
        layer.outputs = before[kept]
    else:
        scatter_outputs(layer, kept, width)


def _scattered(model: nn.Module, name: str, outputs: Sequence[int]) -> list[int]:
    """Which of a layer's own channels are put into the channels `outputs` of its trunk."""
    layer = _layer(model, name)
    if not isinstance(layer, ScatterOutputs):
        return list(outputs)
    return _positions_of(name, outputs, layer.outputs.tolist())


def _positions_of(name: str, indices: Sequence[int], present: list[int]) -> list[int]:
    """Where the dense channels `indices` are among those that are `present`."""
    missing = sorted(set(indices) - set(present))
    if missing:
        raise Refusal(f"{name!r} is to use channels {missing[:8]}, which are removed or not among {len(present)}")
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
    # A depthwise kernel is (C, 1, kh, kw): its only cut is along axis 0, and its inputs go with its outputs.
    depthwise = is_depthwise(layer)  # asked before the widths change
    setattr(layer, "in_channels" if inputs else "out_channels", len(index))
    if depthwise:
        layer.in_channels = layer.groups = len(index)


def _cut_norm(layer: nn.Module, name: str, gone: set[int]) -> None:
    """Any layer whose tensors are all (C,): BatchNorm, frozen BatchNorm, PReLU."""
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
        raise Refusal(f"{name} is a {type(layer).__name__}: it mixes its channels, so none can be removed alone")
    for key, tensor in tensors:
        if tensor.ndim != 1 or tensor.numel() == 1:
            continue  # num_batches_tracked, or the one slope of a PReLU
        index = _others(gone, tensor.numel())
        setattr(layer, key, _kept(tensor, 0, index) if isinstance(tensor, nn.Parameter) else tensor[index].clone())
        for attribute in ("num_features", "num_parameters"):
            if hasattr(layer, attribute):
                setattr(layer, attribute, len(index))


def _kept(parameter: Tensor, dim: int, index: list[int]) -> nn.Parameter:
    # a new parameter, since autograd and optimisers know the old one by its shape; frozen ones stay frozen
    kept = parameter.data.index_select(dim, torch.tensor(index, dtype=torch.long, device=parameter.device)).clone()
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def affine_tensors(model: nn.Module, name: str, side: Side) -> list[tuple[Tensor, int]]:
    """The weights and biases (not running statistics) along one dimension of a layer, with that dimension."""
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner)
    if leaf in dict(parent.named_parameters(recurse=False)):
        return [(getattr(parent, leaf), channel_axis(getattr(parent, leaf)))]
    layer = model.get_submodule(name)
    if side == "in":
        return [(layer.get_parameter("weight"), 1)]
    # a PReLU's single slope is shared by all channels, and zero it would change those that stay
    tensors = [getattr(layer, "weight", None), getattr(layer, "bias", None)]
    return [(t, 0) for t in tensors if t is not None and (t.numel() > 1 or not isinstance(layer, nn.PReLU))]
