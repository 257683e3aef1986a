"""Channels that one BatchNorm scales, and what removing them means for the layers around it.

Where a BatchNorm directly follows the layer that computes its channels, the whole group is narrowed (`keep`); of two
with a depthwise convolution in between, as in inverted residuals, the last one decides: its scale is what is read. On a
trunk or behind a concatenation, as in pre-activation and dense networks, the BatchNorm keeps its width and the layers
that read it select their inputs (`select`), as in the released code of network slimming.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import Refusal
from pruning.graph.dataflow import Flow, trace_flow
from pruning.graph.layers import SelectInputs, is_batch_norm, is_depthwise, is_norm
from pruning.graph.members import Group

Kept = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class NormChannels:
    """Channels that are kept or removed together, and the BatchNorms whose scales say how much they matter.

    `norms`: as a rule one; several where a shortcut adds up what they scale, none in a design, which asks no scales.
    `readers`: the layers that select their inputs; empty where the whole group is narrowed. `unit` is what a selection
    chooses from: that group, or for readers a stand-in with the BatchNorm's name. `channels`: which of the BatchNorm's
    channels the readers still read, None for all.
    """

    unit: Group
    norms: tuple[str, ...]
    readers: tuple[str, ...] = ()
    channels: tuple[int, ...] | None = None

    def scales(self, model: nn.Module) -> Tensor:
        """Mean |gamma| of each channel, shape (width,), float64."""
        gammas = [model.get_parameter(f"{name}.weight").detach().abs().double().cpu() for name in self.norms]
        mean = torch.stack(gammas).mean(0)
        return mean if self.channels is None else mean[list(self.channels)]

    def shifts(self, model: nn.Module) -> Tensor:
        """Largest |beta| of each channel, shape (width,), float64."""
        betas = [model.get_parameter(f"{name}.bias").detach().abs().double().cpu() for name in self.norms]
        largest = torch.stack(betas).amax(0)
        return largest if self.channels is None else largest[list(self.channels)]


def scaling_norms(model: nn.Module, *, linear: bool = False) -> dict[str, _BatchNorm]:
    """Every BatchNorm with a gamma, by name in the order of the network; `linear`: BatchNorm1d as well.

    Raises ValueError for a network without any, and says what it has instead.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine and (linear or not isinstance(module, nn.BatchNorm1d))
    }
    if not norms:
        raise Refusal(
            f"{type(model).__name__} has no BatchNorm2d whose scale can be trained: {_instead(model)};"
            " build the network with norm 'BN'"
        )
    return norms


def norm_channels(model: nn.Module, groups: Sequence[Group], *, linear: bool = False) -> list[NormChannels]:
    """What the BatchNorms of `model` can decide about, in the order of the network."""
    return _decided(model, groups, list(scaling_norms(model, linear=linear)))


def input_selections(model: nn.Module, groups: Sequence[Group]) -> list[NormChannels]:
    """The places behind a BatchNorm, frozen or not, where readers select their inputs, in the order of the network."""
    norms = [name for name, module in model.named_modules() if is_batch_norm(module)]
    try:
        found = _decided(model, groups, norms) if norms else []
    except ValueError:
        return []  # what cannot be followed cannot select either; its groups can still be narrowed
    return [item for item in found if item.readers]


def _decided(model: nn.Module, groups: Sequence[Group], norms: Sequence[str]) -> list[NormChannels]:
    flow = trace_flow(model)
    # groups first: a BatchNorm that scales a group alone narrows it, and only the others may select
    found = [made for group in groups if (made := _narrowed(group, model, norms, flow)) is not None]
    decided = {member.layer for item in found for member in item.unit.members}
    # a stand-in is in no group, so its stage is that of the groups in the same top-level module (layer1, layer2, ...)
    stages = {group.name.partition(".")[0]: group.stage for group in groups if group.stage >= 0}
    for name in norms:
        if name not in decided and (made := _selected(name, model, flow, stages)) is not None:
            found.append(made)
    # Where scales are equal the order decides which channels go, so it is the network's, whatever was found first.
    return sorted(found, key=lambda item: norms.index(item.norms[0]))


def eligible_units(found: Sequence[NormChannels], groups: Sequence[Group], *, method: str) -> list[Group]:
    """The units for a selection, and every other group marked as out of reach, so that its name is still known."""
    units = [item.unit for item in found]
    known = {unit.name for unit in units}
    reason = f"no BatchNorm of its own scales its channels, so {method} cannot rank them"
    return [*units, *(replace(group, fixed=group.fixed or reason) for group in groups if group.name not in known)]


def beside_norms(model: nn.Module, groups: Sequence[Group]) -> frozenset[str]:
    """Groups that no normalisation scales where none is expected: hidden linear layers, and what the gates of
    squeeze-excitation blocks squeeze. A method that goes by BatchNorms is not about them.
    """
    # A layer with weights that loses outputs with a group, yet computes none of its channels, scales them: a gate. What
    # only gates read is the narrow vector between the two layers of a squeeze-excitation block.
    layers = dict(model.named_modules())
    weighted = {name for name, layer in layers.items() if isinstance(layer, nn.Conv2d | nn.Linear)}
    producers = {producer for group in groups for producer in group.producers}
    scaled = {m.layer for group in groups for m in group.members if m.side == "out"} - producers
    gates = {name for name in scaled & weighted if not is_depthwise(layers[name])}
    found = set()
    for group in groups:
        if any(member.layer in layers and is_norm(layers[member.layer]) for member in group.members):
            continue
        readers = {member.layer for member in group.members if member.side == "in"}
        if all(isinstance(layers[name], nn.Linear) for name in group.producers) or (readers and readers <= gates):
            found.add(group.name)
    return frozenset(found)


def keep_and_select(
    found: Sequence[NormChannels], kept: Mapping[str, tuple[int, ...]], model: nn.Module
) -> tuple[Kept, Kept]:
    """Kept channels by the name of the unit, as the `keep` and the `select` of a plan."""
    keep: Kept = {}
    selected: Kept = {}
    for item in found:
        if item.unit.name not in kept:
            continue
        indices = kept[item.unit.name]
        if not item.readers:
            keep[item.unit.name] = indices
        elif len(indices) < item.unit.width:  # a reader of all its inputs selects none
            for reader in item.readers:
                each = model.get_parameter(f"{reader}.weight").shape[1] // item.unit.width  # H*W behind a flatten
                # (N, C, H, W) flattens channel by channel: inputs c * each to (c + 1) * each - 1 are of channel c
                selected[reader] = tuple(c * each + i for c in indices for i in range(each))
    return keep, selected


def _instead(model: nn.Module) -> str:
    for name, module in model.named_modules():
        if is_batch_norm(module) and not isinstance(module, _BatchNorm):
            return f"{name} is a {type(module).__name__}, which holds gamma as a constant"
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            return f"{name} is a {type(module).__name__}, which mixes channels"
    return "it has no normalisation over the batch with a gamma"


def _narrowed(group: Group, model: nn.Module, norms: Sequence[str], flow: Flow) -> NormChannels | None:
    """The group, if each of its producers is scaled by BatchNorms of the group, of which the last one counts.

    None where a BatchNorm scales them together with other channels, as behind a concatenation.
    """
    if group.fixed:
        return None
    inside = {member.layer for member in group.members if member.side == "out"}
    # on a trunk several layers add up into the same channels, and each must be scaled before the sum
    chains = [_scales_behind(producer, inside, model, norms, flow) for producer in group.producers]
    if not all(chains):
        return None
    layers = {name: module for name, module in model.named_modules() if name in inside}
    # A BatchNorm of the group in no chain stands behind a sum or a concatenation, or is not asked. As wide as the
    # group it sees these channels alone, and its scale is left out of account; a wider one ranks them among others.
    for name in layers.keys() - {name for chain in chains for name in chain}:
        if is_batch_norm(layers[name]) and len(layers[name].state_dict()["weight"]) != group.width:
            return None
    return NormChannels(group, tuple(chain[-1] for chain in chains))


def _scales_behind(
    producer: str, inside: Collection[str], model: nn.Module, norms: Sequence[str], flow: Flow
) -> list[str]:
    """The BatchNorms that scale a layer's channels one after the other, through depthwise convolutions in between."""
    # Follow the one layer that reads what was reached and nothing else; a fork, a sum or a dense layer ends the chain.
    # A depthwise convolution has one kernel a channel, so what it computes is the same channel still.
    found: list[str] = []
    layer = producer
    while True:
        readers = [reader for reader in flow.readers.get(layer, frozenset()) if reader in inside]
        follower = readers[0] if len(flow.readers.get(layer, ())) == len(readers) == 1 else None
        if follower is None or flow.sources[follower] != {layer}:
            return found
        if follower in norms:
            found.append(follower)
        elif not is_depthwise(model.get_submodule(follower)):
            return found
        layer = follower


def _selected(name: str, model: nn.Module, flow: Flow, stages: Mapping[str, int]) -> NormChannels | None:
    """A BatchNorm whose output goes to nothing but convolutions and linear layers that read nothing else."""
    readers = sorted(reader or "" for reader in flow.readers.get(name, frozenset()))
    if not readers or not all(reader and flow.sources[reader] == {name} for reader in readers):
        return None
    layers = [model.get_submodule(reader) for reader in readers]
    # the filters of a grouped convolution read a part of the channels each, and cannot all do without the same ones
    if not all(isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1) for m in layers):
        return None
    width = len(model.get_submodule(name).state_dict()["weight"])  # a frozen BatchNorm's is a buffer
    # None: reads all. In a network that was pruned before, readers have a selection, and choose among that from now on.
    selected = {tuple(layer.inputs.tolist()) if isinstance(layer, SelectInputs) else None for layer in layers}
    channels = selected.pop()
    if selected or (channels is not None and max(channels) >= width):
        return None  # readers that select already, and not the same channels, or inputs behind a flatten
    stage = stages.get(name.partition(".")[0], -1)
    # a group for the selection only: without members, since surgery cuts the readers and nothing else
    unit = Group(name, width if channels is None else len(channels), (name,), (), stage)
    return NormChannels(unit, (name,), tuple(readers), channels)
