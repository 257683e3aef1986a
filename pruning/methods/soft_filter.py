"""Soft filter pruning: He et al., Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks, IJCAI 2018
(arXiv 1808.06866), section 3.

At the start and after every epoch the int(C * ratio) filters with the lowest L2 norm of every convolution, the stem
and the second convolutions of residual blocks included, become zero. Gradients are not masked, so a filter can come
back; the choice is made anew each time, the last one after the last epoch. (The released code's `rate` is the fraction
kept.) Behind a zeroed filter a BatchNorm emits its beta, and a ReLU passes no gradient where that is not positive: such
a filter stays zero, here as in the released code. Raising beta does bring all of them back, but BatchNorm then scales
the tiny new filters up, and zeroing them again costs far more accuracy than it gains.

A zeroed filter also emits a constant when evaluated: beta - gamma * mean / std. With `zero_norm`, the default, gamma
and beta of its channel are zeroed too, so that it emits nothing and what is evaluated and saved is the small network.
With gamma at zero no gradient would reach the filter again, so both are put back before the first step of the next
epoch; that step alone has no gradient for the zeroed filters. `zero_norm=False` is the released form.

The released code does not extract the small network. Here `prune` zeroes once more and cuts: a convolution that is the
only one to compute its channels is narrowed with all that reads them; one that writes into a trunk is narrowed
together with its BatchNorm, whose outputs go back into the trunk's channels (`scatter`). With `zero_norm=False` the
BatchNorm stays whole behind a scattering convolution. Grouped and depthwise convolutions are left alone: their
filters do not stand for themselves. `Selection.scope` is not used, the method takes all convolutions. One selection
says how many filters training zeroes and how many are cut.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.dataflow import trace_flow
from pruning.graph.layers import ScatterOutputs, is_batch_norm
from pruning.graph.members import Group
from pruning.methods.method import Choice, Effect, Method, MethodOptions, Request
from pruning.select import Selection, check_layers, count_to_keep, eligible, keep_indices, ratio_of

# int(C * ratio) must not lose a filter to floating point: 0.29 * 100 is 28.999...
_TOLERANCE = 1e-9
_AFFINE = ("weight", "bias")


@dataclass(frozen=True)
class SoftFilterOptions(MethodOptions):
    """Options of soft filter pruning.

    `zero_norm`: zero gamma and beta with the filter.
    """

    zero_norm: bool = True


def filters_to_keep(width: int, ratio: float, round_to: int = 1) -> int:
    """width - int(width * ratio): the method rounds down what it zeroes, not what it keeps."""
    return count_to_keep(width, math.floor(width * ratio + _TOLERANCE) / width, round_to)


def strongest_filters(weight: Tensor, n_keep: int) -> tuple[int, ...]:
    """The `n_keep` filters with the largest L2 norm over (in, kh, kw), ascending; `weight` (out, in, kh, kw)."""
    return keep_indices(weight.detach().double().flatten(1).norm(dim=1).cpu(), n_keep)


def find_filters(model: nn.Module) -> dict[str, str | None]:
    """Every convolution whose filters stand for themselves, with the BatchNorm that alone reads it, or None.

    One that computes the network's output is not among them: its channels are classes.
    """
    flow = trace_flow(model)
    modules = dict(model.named_modules())
    found: dict[str, str | None] = {}
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and name not in flow.outputs:
            reader = flow.only_reader(name)
            found[name] = reader if reader is not None and is_batch_norm(modules[reader]) else None
    return found


def zero_filters(model: nn.Module, kept: Mapping[str, Sequence[int]], norms: Mapping[str, str | None]) -> None:
    """Zero, in place, every filter that is not kept, with its bias and its channel of the BatchNorm in `norms`."""
    with torch.no_grad():
        for name, indices in kept.items():
            for layer in [name, norms.get(name)]:
                for tensor in _affine(model, layer):
                    gone = sorted(set(range(len(tensor))) - set(indices))
                    tensor[gone] = 0


class SoftFilterEffect(Effect):
    """Zeroes the weakest filters at the start and after every epoch, and lets them come back in between.

    `n_keep`: how many filters of each convolution stay.
    """

    def __init__(self, model: nn.Module, n_keep: Mapping[str, int], *, zero_norm: bool = True):
        self.model = model
        self.n_keep = dict(n_keep)
        self.norms = {name: norm if zero_norm else None for name, norm in find_filters(model).items() if name in n_keep}
        if not self.norms:
            raise Refusal(f"{type(model).__name__} has no convolution whose filters could be zeroed")
        # gamma and beta as they were before the zeroing, until the first backward pass after it
        self._before: dict[str, Tensor] = {}

    def at_start(self) -> None:
        self._zero()

    def after_backward(self) -> None:
        # after the first backward pass, before its step: gamma is zero for that one pass, and has its value for the
        # step
        with torch.no_grad():
            for norm in dict.fromkeys(name.rpartition(".")[0] for name in self._before):
                for leaf, tensor in zip(_AFFINE, _affine(self.model, norm), strict=True):
                    tensor.copy_(self._before[f"{norm}.{leaf}"])
        self._before = {}

    def after_epoch(self) -> None:
        self._zero()

    def _zero(self) -> None:
        for norm in filter(None, self.norms.values()):
            for leaf, tensor in zip(_AFFINE, _affine(self.model, norm), strict=True):
                # setdefault: of two zeroings without a step in between the second finds zeros, not what was before
                self._before.setdefault(f"{norm}.{leaf}", tensor.detach().clone())
        kept = {}
        for name in self.norms:
            weight = self.model.get_parameter(f"{name}.weight")
            kept[name] = strongest_filters(weight, self.n_keep[name])
        zero_filters(self.model, kept, self.norms)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._before)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._before = {name: tensor.clone() for name, tensor in state.items()}


def prune(model: nn.Module, request: Request[SoftFilterOptions]) -> Choice:
    """Cut the filters with the lowest L2 norm out of every convolution whose channels stay inside the network."""
    options = request.options
    norms = find_filters(model)
    by_name = {group.name: group for group in request.groups if len(group.producers) == 1 and not group.fixed}
    keep, scatter = {}, {}
    for name, n_keep in wanted_filters(model, request).items():
        weight, norm = model.get_parameter(f"{name}.weight"), norms[name]
        indices = strongest_filters(weight, n_keep)
        if n_keep == len(weight):
            continue
        # Narrowing takes the channel from all that reads it, which is exact only if they read zero. Otherwise the
        # convolution alone is cut and its output put back into the full width, zeros between, as the zeroed one has it.
        if name in by_name and _emits_nothing(by_name[name], model, norm if options.zero_norm else None):
            keep[name] = indices
        else:
            last = norm if norm is not None and options.zero_norm else name
            scatter[last] = _in_trunk(model.get_submodule(last), indices)
    producers = (producer for group in request.groups for producer in group.producers)
    convolutions = frozenset(name for name in producers if isinstance(model.get_submodule(name), nn.Conv2d))
    return Choice(keep=keep, scatter=scatter, takes=convolutions)


def wanted_filters(model: nn.Module, request: Request[SoftFilterOptions]) -> dict[str, int]:
    """How many filters the selection leaves of each convolution that it covers; training and cut ask here alike.

    Convolutions whose channels leave the network (features that a detector reads) are in no group and stay whole.
    """
    computed = {producer for group in request.groups for producer in group.producers}
    norms = [name for name in find_filters(model) if name in computed]
    return {unit.name: _count(unit, request.selection) for unit in _units(model, norms, request)}


def _units(model: nn.Module, norms: Sequence[str], request: Request[SoftFilterOptions]) -> list[Group]:
    """One stand-in for each convolution, so that the selection's `skip`, `layers` and stages apply to it."""
    staged = [group for group in request.groups if group.stage >= 0]
    stages = {name.partition(".")[0]: group.stage for group in staged for name in group.producers}
    units = []
    for name in norms:
        width = len(model.get_parameter(f"{name}.weight"))
        units.append(Group(name, width, (name,), (), stages.get(name.partition(".")[0], -1)))
    others = [replace(group, fixed="not a convolution") for group in request.groups if group.name not in norms]
    chosen = eligible([*units, *others], replace(request.selection, scope="inner"))
    found = [group for group in chosen if group.name in norms]
    check_layers(found, request.selection)
    return found


def _count(unit: Group, selection: Selection) -> int:
    if selection.level != "layer":
        raise Refusal(f"soft_filter takes each layer's share from the user: level 'layer', not {selection.level!r}")
    return filters_to_keep(unit.width, ratio_of(unit, selection), selection.round_to)


def _in_trunk(layer: nn.Module, filters: tuple[int, ...]) -> tuple[int, ...]:
    """The trunk's channels that these filters of a layer compute: others than their own after a first pruning."""
    return tuple(layer.outputs[list(filters)].tolist()) if isinstance(layer, ScatterOutputs) else filters


def _emits_nothing(group: Group, model: nn.Module, norm: str | None) -> bool:
    """Is a zeroed channel zero wherever it is read? A BatchNorm other than `norm` would add its constant."""
    layers = {member.layer for member in group.members}
    return not any(name != norm and is_batch_norm(module) for name, module in model.named_modules() if name in layers)


def _affine(model: nn.Module, layer: str | None) -> list[Tensor]:
    """Weight and bias of a layer, parameters or (frozen BatchNorm) buffers; (C, ...) each."""
    if layer is None:
        return []
    module = model.get_submodule(layer)
    return [tensor for leaf in _AFFINE if (tensor := getattr(module, leaf, None)) is not None]


def training_effect(model: nn.Module, request: Request[SoftFilterOptions]) -> Effect:
    """Zeroing at the start and after every epoch, of as many filters as `prune` cuts for the same request."""
    return SoftFilterEffect(model, wanted_filters(model, request), zero_norm=request.options.zero_norm)


METHOD = Method(
    prune=prune,
    options=SoftFilterOptions,
    training_effect=training_effect,
    effect_reads=("ratio", "level", "skip", "layers", "round_to", "target_macs", "target_params"),
)
