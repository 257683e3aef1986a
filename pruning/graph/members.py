"""Coupled channel groups as plain data: layer names and index maps."""

from dataclasses import dataclass
from typing import Literal

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

    `producers` are the convolutions and linear layers that compute the channels (depthwise ones only carry them, the
    gate of a squeeze-excitation block only scales them); more than one means that a shortcut adds them up. `stage`
    counts from 0 and is -1 where the network has none.
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
