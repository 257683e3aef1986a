"""The part of a layer's kernel that reads a group of channels: taken out as a tensor, put back, held at zero."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pruning.graph.members import Group


@dataclass(frozen=True)
class Consumer:
    """A convolution or linear layer that reads a group's channels.

    `positions` (C, P): the P input indices of each of the group's C channels; P = 1 but for a linear layer behind a
    flattened feature map.
    """

    layer: str
    positions: Tensor


def consumers_of(group: Group) -> list[Consumer]:
    """Every layer that reads the channels of `group`; one that reads them twice has the positions side by side."""
    positions: dict[str, list[Tensor]] = {}
    for member in group.members:
        if member.side == "in":
            positions.setdefault(member.layer, []).append(torch.tensor(member.positions))
    return [Consumer(layer, torch.cat(parts, dim=1)) for layer, parts in positions.items()]


def kernel_slices(model: nn.Module, consumer: Consumer) -> Tensor:
    """The weights of each channel, (O, C, K): K = P * kh * kw of a convolution, P of a linear layer.

    Not to be written to: they may share the memory of the layer's weights, or not.
    """
    weight = model.get_parameter(f"{consumer.layer}.weight").detach()
    channels, per_channel = consumer.positions.shape
    if not _reads_all_in_order(weight, consumer):  # else spare the copy: a linear layer may have 10^8 weights
        # (O, I, kh, kw) -> (O, C * P, kh, kw): the P inputs of a channel stand side by side
        weight = weight[:, consumer.positions.flatten().to(weight.device)]
    return weight.reshape(weight.shape[0], channels, per_channel * weight[0, 0].numel())


@torch.no_grad()
def write_slices(model: nn.Module, consumer: Consumer, slices: Tensor) -> None:
    """Inverse of `kernel_slices`, in place."""
    weight = model.get_parameter(f"{consumer.layer}.weight")
    if _reads_all_in_order(weight, consumer):
        weight.copy_(slices.reshape(weight.shape))
    else:
        index = consumer.positions.flatten().to(weight.device)
        weight[:, index] = slices.to(weight).reshape(weight.shape[0], len(index), *weight.shape[2:])


def _reads_all_in_order(weight: Tensor, consumer: Consumer) -> bool:
    return torch.equal(consumer.positions.flatten(), torch.arange(weight.shape[1]))


@contextmanager
def zeros_held(model: nn.Module, inputs: Mapping[str, Tensor]) -> Iterator[None]:
    """While a network trains, keep the weights of the input indices `inputs[layer]`, zero now, at zero.

    Their gradient is zeroed, and at weight zero neither momentum nor weight decay moves a weight that has no gradient.
    """
    handles = []
    try:
        for layer, index in inputs.items():
            weight = model.get_parameter(f"{layer}.weight")
            if weight.requires_grad:
                # index_fill(dim, index, value) of the gradient that the hook is given
                zero = partial(Tensor.index_fill, dim=1, index=index.to(weight.device), value=0)
                handles.append(weight.register_hook(zero))
        yield
    finally:
        for handle in handles:
            handle.remove()


def rewritten(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """The entries of the state that differ between two networks of the same shape, as they are in `after`."""
    old = before.state_dict()
    return {key: value.clone() for key, value in after.state_dict().items() if not torch.equal(value, old[key])}
