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
filters do not stand for themselves. `Selection.scope` is not used, the method takes all convolutions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from pruning.graph.dataflow import trace_flow
from pruning.graph.layers import is_batch_norm
from pruning.graph.members import Group
from pruning.methods.method import Choice, Effect, Method, Request
from pruning.select import Selection, count_to_keep, eligible, keep_indices, ratio_of

# int(C * ratio) must not lose a filter to floating point: 0.29 * 100 is 28.999...
_TOLERANCE = 1e-9
_AFFINE = ("weight", "bias")


@dataclass(frozen=True)
class SoftFilterOptions:
    """Options of soft filter pruning.

    `ratio`: fraction of each convolution's filters that training zeroes; prune with the same in the selection.
    `zero_norm`: zero gamma and beta with the filter. `skip`: names or patterns of convolutions left whole in training.
    """

    ratio: float = 0.3
    zero_norm: bool = True
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio {self.ratio} is outside 0 <= ratio < 1 (it is the fraction removed)")


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
    """Zeroes the weakest filters at the start and after every epoch, and lets them come back in between."""

    def __init__(self, model: nn.Module, options: SoftFilterOptions):
        self.model = model
        self.ratio = options.ratio
        skipped = [n for n, _ in model.named_modules() if any(fnmatchcase(n, pattern) for pattern in options.skip)]
        self.norms = {name: norm for name, norm in find_filters(model).items() if name not in skipped}
        if not options.zero_norm:
            self.norms = dict.fromkeys(self.norms)
        if not self.norms:
            raise ValueError(f"{type(model).__name__} has no convolution whose filters could be zeroed")
        # gamma and beta as they were before the zeroing, until the first backward pass after it
        self._before: dict[str, Tensor] = {}

    def at_start(self) -> None:
        self._zero()

    def after_backward(self) -> None:
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
                self._before.setdefault(f"{norm}.{leaf}", tensor.detach().clone())
        kept = {}
        for name in self.norms:
            weight = self.model.get_parameter(f"{name}.weight")
            kept[name] = strongest_filters(weight, filters_to_keep(len(weight), self.ratio))
        zero_filters(self.model, kept, self.norms)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._before)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._before = {name: tensor.clone() for name, tensor in state.items()}


def prune(model: nn.Module, request: Request) -> Choice:
    """Cut the filters with the lowest L2 norm out of every convolution whose channels stay inside the network."""
    options: SoftFilterOptions = request.options
    computed = {producer for group in request.groups for producer in group.producers}
    norms = {name: norm for name, norm in find_filters(model).items() if name in computed}
    by_name = {group.name: group for group in request.groups if len(group.producers) == 1 and not group.fixed}
    keep, scatter = {}, {}
    for unit in _units(model, norms, request):
        indices = strongest_filters(model.get_parameter(f"{unit.name}.weight"), _count(unit, request.selection))
        norm = norms[unit.name]
        if len(indices) == unit.width:
            continue
        if unit.name in by_name and _emits_nothing(by_name[unit.name], model, norm if options.zero_norm else None):
            keep[unit.name] = indices
        else:
            scatter[norm if norm is not None and options.zero_norm else unit.name] = indices
    return Choice(keep=keep, scatter=scatter)


def _units(model: nn.Module, norms: Mapping[str, str | None], request: Request) -> list[Group]:
    """One stand-in for each convolution, so that the selection's `skip`, `layers` and stages apply to it."""
    staged = [group for group in request.groups if group.stage >= 0]
    stages = {name.partition(".")[0]: group.stage for group in staged for name in group.producers}
    units = []
    for name in norms:
        width = len(model.get_parameter(f"{name}.weight"))
        units.append(Group(name, width, (name,), (), stages.get(name.partition(".")[0], -1)))
    others = [replace(group, fixed="not a convolution") for group in request.groups if group.name not in norms]
    chosen = eligible([*units, *others], replace(request.selection, scope="inner"))
    return [group for group in chosen if group.name in norms]


def _count(unit: Group, selection: Selection) -> int:
    if selection.level != "layer":
        raise ValueError(f"soft_filter takes each layer's share from the user: level 'layer', not {selection.level!r}")
    return filters_to_keep(unit.width, ratio_of(unit, selection), selection.round_to)


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


def training_effect(model: nn.Module, options: Any = None) -> Effect:
    """Zeroing at the start and after every epoch."""
    return SoftFilterEffect(model, options or SoftFilterOptions())


METHOD = Method(prune=prune, options=SoftFilterOptions, training_effect=training_effect)
