"""How far a layer of a network being pruned is from the original's.

Both networks run on each batch and are sampled at the same positions, so that one batch at a time is held.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.graph.blocks import branch_end, is_residual_block
from pruning.reconstruct.kernels import Consumer, kernel_slices
from pruning.reconstruct.least_squares import Sums, make_sums
from pruning.reconstruct.passes import Passes
from pruning.reconstruct.responses import Hook, Places, draw_places, patches, response

_SMALLEST_SCALE = 1e-3  # of the largest: an output that BatchNorm all but silences cannot make up for the shortcut


@dataclass(frozen=True)
class Branch:
    """The residual block whose branch a layer ends, and the scale (O,) of the normalisation behind that layer.

    `shortcut` names the layers on the shortcut, if it has any.
    """

    block: str
    shortcut: str | None
    scale: Tensor


@dataclass(frozen=True)
class Pass:
    """One pass through a layer: what it read, what it answered, and the shortcut (N, O, H, W) at a branch's end."""

    layer: nn.Module
    x: Tensor
    output: Tensor
    shortcut: Tensor | None = None

    def answer(self, places: Places) -> tuple[Tensor, Tensor | None]:
        """Output without bias, and shortcut, at these places; both (S, O)."""
        shortcut = self.shortcut
        if shortcut is not None:
            # the branch's end and the sum that it goes into have maps of one size, so the places are the same
            shortcut = shortcut.permute(0, 2, 3, 1)[places.image, places.row, places.column]  # (N, O, H, W) -> (S, O)
        return response(self.layer, self.x, places), shortcut


def observe_pair(
    original: Passes,
    work: Passes,
    consumers: Sequence[Consumer],
    *,
    positions_per_image: int,
    generator: torch.Generator,
) -> list[Sums]:
    """Sums of the responses of each layer in `work`; the error is what the original's outputs exceed them by.

    At the end of a residual branch the error includes the shortcut's, divided by the scale of the normalisation.
    """
    all_sums: list[Sums] = []
    hooks_of_original: dict[str, Hook] = {}
    hooks_of_work: dict[str, Hook] = {}
    # Of each batch the original is asked first, where it draws the positions; the pruned network is compared there.
    for consumer in consumers:
        branch = branch_of(original.model, consumer.layer)
        # What ends a branch is scaled before the sum: there an error of one output counts by that scale.
        sums = make_sums(kernel_slices(work.model, consumer), None if branch is None else branch.scale.abs())
        ask, compare = _questions(consumer, branch, sums, positions_per_image, generator)
        hooks_of_original |= _hooks(consumer.layer, branch, ask)
        hooks_of_work |= _hooks(consumer.layer, branch, compare)
        all_sums.append(sums)
    for _ in zip(original.observe(hooks_of_original), work.observe(hooks_of_work), strict=True):
        pass
    return all_sums


def branch_of(model: nn.Module, layer: str) -> Branch | None:
    """The residual branch that the convolution `layer` ends, or None: a block is known by its type (`blocks`)."""
    name, _, leaf = layer.rpartition(".")
    if not is_residual_block(model.get_submodule(name)):
        return None
    block, end = model.get_submodule(name), branch_end(model, name)
    if getattr(block, "se", None) is not None:
        return None  # timm's gate behind the branch scales it by a factor that depends on the image
    children = list(dict(block.named_children()))
    # The convolution right before the branch's last normalisation, or the last layer itself where none follows.
    # Children of the known blocks stand in the order in which they run; a layer of the shortcut comes behind the
    # branch's end.
    before = children[: children.index(end.removeprefix(f"{name}.").partition(".")[0]) + 1]
    if [leaf] != [child for child in before if isinstance(block.get_submodule(child), nn.Conv2d)][-1:]:
        return None
    weight = model.get_parameter(f"{layer}.weight")
    scale = weight.new_ones(weight.shape[0])
    norm: Any = model.get_submodule(end)
    if getattr(norm, "running_var", None) is not None:  # BatchNorm, or a frozen one
        # in evaluation mode a BatchNorm is x * scale + constant
        scale = (scale if norm.weight is None else norm.weight.detach()) / (norm.running_var + norm.eps).sqrt()
    has_layers = getattr(block, "downsample", None) is not None
    return Branch(name, f"{name}.downsample" if has_layers else None, scale)


def _questions(
    consumer: Consumer, branch: Branch | None, sums: Sums, positions_per_image: int, generator: torch.Generator
) -> tuple[Callable[[Pass], None], Callable[[Pass], None]]:
    """What to do at the original's pass through a layer, and then at the pruned network's."""
    # A layer that is passed through several times in a batch answers in the same order in both networks: first in,
    # first out. Only sampled places are kept in between, and never those of more than one batch.
    answers: deque[tuple[Places, Tensor, Tensor | None]] = deque()

    def ask(seen: Pass) -> None:
        places = draw_places(seen.output, positions_per_image, generator)
        answers.append((places, *seen.answer(places)))

    def compare(seen: Pass) -> None:
        places, wanted, wanted_shortcut = answers.popleft()
        output, shortcut = seen.answer(places)
        # Wanted is branch * scale + shortcut as in the original. What the shortcut lost is asked of the branch, divided
        # by the scale because it is asked before the normalisation.
        error = wanted - output
        # |scale| where an output counts, with its sign where it is divided by: a negative gamma turns the sum round.
        if branch is not None and shortcut is not None and wanted_shortcut is not None:
            heard = branch.scale.abs() > _SMALLEST_SCALE * branch.scale.abs().max()
            error = error + torch.where(heard, (wanted_shortcut - shortcut) / branch.scale, 0)
        sums.add(patches(seen.layer, seen.x, places, consumer.positions), error)

    return ask, compare


def _hooks(name: str, branch: Branch | None, act: Callable[[Pass], None]) -> dict[str, Hook]:
    """Hooks that call `act` at each pass through the layer `name`: at the end of its block if it ends a branch."""
    if branch is None:
        return {name: lambda layer, x, output: act(Pass(layer, x, output))}
    # Hooks run as layers end: branch and shortcut in either order, then the block, when all parts have been seen.
    seen: dict[str, Any] = {}

    def at_layer(layer: nn.Module, x: Tensor, output: Tensor) -> None:
        seen["layer"], seen["x"], seen["output"] = layer, x, output

    def at_shortcut(layer: nn.Module, x: Tensor, output: Tensor) -> None:
        seen["shortcut"] = output

    def at_block(block: nn.Module, x: Tensor, output: Tensor) -> None:
        # a shortcut without layers hands on the block's own input
        act(Pass(seen.pop("layer"), seen.pop("x"), seen.pop("output"), seen.pop("shortcut", x)))

    hooks: dict[str, Hook] = {name: at_layer, branch.block: at_block}
    return hooks if branch.shortcut is None else {**hooks, branch.shortcut: at_shortcut}
