"""Residual blocks that can lose their branch, so that only the shortcut is left.

A block says so itself with two members (`ResidualBlock`); torchvision's blocks, which we cannot change, are in a table.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


@runtime_checkable
class ResidualBlock(Protocol):
    """`branch_end` names the block's layer whose zero weight and bias make the branch zero."""

    branch_end: str

    def shortcut_only(self) -> nn.Module:
        """What the block computes when its branch is zero, with the shortcut's layers under their old names."""
        ...


class ShortcutThenReLU(nn.Module):
    """A block of a post-activation network without its branch: relu(downsample(x)), or relu(x)."""

    def __init__(self, downsample: nn.Module | None):
        super().__init__()
        self.downsample = downsample
        self.relu = nn.ReLU()  # not in place: x may be a feature that others read

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x if self.downsample is None else self.downsample(x))


_TORCHVISION: dict[type, str] = {BasicBlock: "bn2", Bottleneck: "bn3"}


def residual_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that can lose their branch, in the order of the network."""
    return [name for name, module in model.named_modules() if is_residual_block(module)]


def is_residual_block(module: nn.Module) -> bool:
    """Can it lose its branch?"""
    return type(module) in _TORCHVISION or isinstance(module, ResidualBlock)


def branch_end(model: nn.Module, name: str) -> str:
    """Full name of the layer that ends the branch of the block `name`."""
    block = _block(model, name)
    last = block.branch_end if isinstance(block, ResidualBlock) else _TORCHVISION[type(block)]
    return f"{name}.{last}"


def drop_branch(model: nn.Module, name: str) -> None:
    """Replace the block `name` of `model` by its shortcut; ValueError for a module that is no residual block."""
    block = _block(model, name)
    if isinstance(block, ResidualBlock):
        small = block.shortcut_only()
    else:
        assert isinstance(block, BasicBlock | Bottleneck)
        small = ShortcutThenReLU(block.downsample)
    small.train(block.training)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, small)


def _block(model: nn.Module, name: str) -> nn.Module:
    try:
        block = model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"the plan drops {name!r}, which {type(model).__name__} does not have") from error
    if type(block) not in _TORCHVISION and not isinstance(block, ResidualBlock):
        raise ValueError(f"{name!r} is a {type(block).__name__}, not a residual block that can lose its branch")
    return block
