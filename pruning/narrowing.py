"""A network that loses channel by channel without being cut: which one goes next, what that saves, what it zeroes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.cost import count_activations_of_parts, count_macs_of_parts
from pruning.errors import Refusal
from pruning.graph.members import Group, Side
from pruning.select import Selection, limits
from pruning.surgery import affine_tensors

Price = Literal["memory", "macs", "none"]
"""What a channel's importance is divided by: the activations or the MACs that go with it, or nothing."""


@dataclass
class _Layer:
    """`macs`: of each pair of an input and an output channel. `activations`: of each output channel."""

    macs: int
    activations: int
    inputs: int
    outputs: int

    def cost(self, inputs_gone: int = 0, outputs_gone: int = 0) -> tuple[int, int]:
        """Multiply-adds, and elements of the output, with fewer channels."""
        outputs = self.outputs - outputs_gone
        return self.macs * (self.inputs - inputs_gone) * outputs, self.activations * outputs


class Savings:
    """The MACs and activations of the layers that `groups` run through, of one image of the size of `example`.

    A layer's activations are the elements of its output, as `count_activations` counts them.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group], example: Tensor):
        modules = dict(model.named_modules())
        met = dict.fromkeys(member.layer for group in groups for member in group.members)
        layers = {name: modules[name] for name in met if isinstance(modules.get(name), nn.Conv2d | nn.Linear)}
        image = example[:1].to(next(model.parameters()).device)
        macs = count_macs_of_parts(model, image, list(layers))
        activations = count_activations_of_parts(model, image, list(layers))
        self._layers = {}
        for name, layer in layers.items():
            outputs, inputs = layer.get_parameter("weight").shape[:2]  # of a depthwise kernel one input each
            self._layers[name] = _Layer(macs[name] // (inputs * outputs), activations[name] // outputs, inputs, outputs)
        # how many places of which layer one channel takes
        self._uses: dict[str, dict[str, dict[Side, int]]] = {}
        for group in groups:
            uses: dict[str, dict[Side, int]] = {}
            for member in group.members:
                if member.layer in layers:
                    sides = uses.setdefault(member.layer, {})
                    sides[member.side] = sides.get(member.side, 0) + len(member.positions[0])
            self._uses[group.name] = uses

    def of(self, group: str) -> tuple[int, int]:
        """MACs and activations that the network would save with one more channel of the group gone."""
        macs = activations = 0
        for name, sides in self._uses[group].items():
            layer = self._layers[name]
            before, after = layer.cost(), layer.cost(sides.get("in", 0), sides.get("out", 0))
            macs += before[0] - after[0]
            activations += before[1] - after[1]
        return macs, activations

    def remove(self, group: str, channels: int = 1) -> None:
        """Count these many channels of the group as gone."""
        for name, sides in self._uses[group].items():
            self._layers[name].inputs -= channels * sides.get("in", 0)
            self._layers[name].outputs -= channels * sides.get("out", 0)


class Narrowing:
    """Which channels of `groups` are left, and which go next, until `selection` is met.

    `to_go`: how many still have to go. `left[name]`: which are left, (width,), on the CPU.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], selection: Selection, *, example: Tensor, price: Price
    ):
        self.to_go, self._least = limits(groups, selection)
        self.left = {group.name: torch.ones(group.width, dtype=torch.bool) for group in groups}
        self._price = price
        self._savings = Savings(model, groups, example)

    def next(self, importance: Mapping[str, Tensor], n: int) -> dict[str, list[int]]:
        """Take away `n` more channels, one after the other the one that is least important for what it saves.

        `importance[name]` (width,). What a channel saves is counted in the network that those before have left. None
        goes of infinite importance, none that the selection keeps, and no more than have to go. Of equals the higher
        index goes, in the later group.
        """
        waiting = {name: self._in_order(name, values) for name, values in importance.items()}
        gone: dict[str, list[int]] = {}
        for _ in range(min(n, self.to_go)):
            able = [name for name in waiting if waiting[name] and int(self.left[name].sum()) > self._least[name]]
            if not able:
                break
            costs = {name: waiting[name][-1][0] / self._saved_by(name) for name in able}
            least = min(costs.values())
            name = next(name for name in reversed(able) if costs[name] == least)
            _, channel = waiting[name].pop()
            self.remove(name, [channel])
            gone.setdefault(name, []).append(channel)
        return gone

    def remove(self, group: str, channels: Sequence[int]) -> None:
        """Count channels of a group as gone."""
        self.left[group][list(channels)] = False
        self._savings.remove(group, len(channels))
        self.to_go -= len(channels)

    def keep(self) -> dict[str, tuple[int, ...]]:
        """The channels that are left of each group, ascending."""
        return {name: tuple(left.nonzero().flatten().tolist()) for name, left in self.left.items()}

    def _in_order(self, group: str, importance: Tensor) -> list[tuple[float, int]]:
        """(importance, channel) of those left that may go, the first to go last."""
        if bool(importance.isnan().any()):
            raise Refusal(f"the importance of a channel of {group} is not a number")
        values = importance.double().cpu().tolist()
        able = [c for c in self.left[group].nonzero().flatten().tolist() if values[c] < float("inf")]
        return sorted(((values[c], c) for c in able), key=lambda item: (-item[0], item[1]))

    def _saved_by(self, group: str) -> float:
        macs, activations = self._savings.of(group)
        return float(max(1, {"memory": activations, "macs": macs, "none": 1}[self._price]))


@dataclass(frozen=True)
class ChannelSlices:
    """All weights and biases, or buffers of frozen normalisation, that belong to the channels of a group.

    Each with its dimension and the places (width, P) of every channel along it.
    """

    slices: tuple[tuple[Tensor, int, Tensor], ...]

    @classmethod
    def of(cls, model: nn.Module, group: Group) -> "ChannelSlices":
        return cls(
            tuple(
                (tensor, dim, torch.tensor(member.positions, device=tensor.device))
                for member in group.members
                for tensor, dim in affine_tensors(model, member.layer, member.side)
            )
        )

    def at(self, channels: Sequence[int]) -> list[tuple[Tensor, int, Tensor]]:
        """The tensors with their dimension and the places (P,) of these channels along it."""
        return [(tensor, dim, places[list(channels)].flatten()) for tensor, dim, places in self.slices]

    def zero(self, channels: Sequence[int]) -> None:
        """Set all that belongs to these channels to zero, in place."""
        for tensor, dim, places in self.at(channels):
            tensor.data.index_fill_(dim, places, 0)

    def zeros(self) -> Tensor:
        """Of which channels is all zero? (width,), on the CPU."""
        alive = [
            (tensor.detach() != 0).transpose(0, dim).reshape(tensor.shape[dim], -1).any(1)[places].any(1).cpu()
            for tensor, dim, places in self.slices
        ]
        return ~torch.stack(alive).any(0)
