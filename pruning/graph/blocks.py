"""Residual blocks that can lose their branch, so that only the shortcut is left.

A block says so itself with two members (`ResidualBlock`); torchvision's and timm's blocks, which we cannot change, are
in a table.
"""

import copy
import sys
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from pruning.errors import Refusal


@runtime_checkable
class ResidualBlock(Protocol):
    """`branch_end` names the block's layer whose zero weight and bias make the branch zero."""

    branch_end: str

    def shortcut_only(self) -> nn.Module:
        """What the block computes when its branch is zero, with the shortcut's layers under their old names."""
        ...


class ShortcutThenReLU(nn.Module):
    """A block of a post-activation network without its branch: relu(downsample(x)), or relu(x).

    `activation` replaces the ReLU; it is copied, and not in place: x may be a feature that others read.
    """

    def __init__(self, downsample: nn.Module | None, activation: nn.Module | None = None):
        super().__init__()
        self.downsample = downsample
        self.relu = nn.ReLU() if activation is None else copy.deepcopy(activation)
        # in the dense block the activation may work in place on a fresh sum; here it would overwrite the block's input
        if hasattr(self.relu, "inplace"):
            self.relu.inplace = False  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x if self.downsample is None else self.downsample(x))


class _Ends(NamedTuple):
    """Of a block that computes activation(branch(x) + shortcut(x)): the layer that ends the branch, the activation."""

    branch: str
    activation: str


_TORCHVISION = {BasicBlock: _Ends("bn2", "relu"), Bottleneck: _Ends("bn3", "relu")}
# by module and class; what follows the branch's last BatchNorm, a squeeze-excitation, leaves zero at zero
_TIMM = {
    ("timm.models.resnet", "BasicBlock"): _Ends("bn2", "act2"),
    ("timm.models.resnet", "Bottleneck"): _Ends("bn3", "act3"),
    ("timm.models.res2net", "Bottle2neck"): _Ends("bn3", "relu"),
    ("timm.models.resnest", "ResNestBottleneck"): _Ends("bn3", "act3"),
    ("timm.models.sknet", "SelectiveKernelBasic"): _Ends("conv2.bn", "act"),
    ("timm.models.sknet", "SelectiveKernelBottleneck"): _Ends("conv3.bn", "act"),
}


def _ends(module: nn.Module) -> _Ends | None:
    """The entry of a block that we cannot change; timm is not imported for it: a network of timm's has done so."""
    # The class itself, not a subclass: one that adds to the forward pass computes something else without its branch.
    for (file, name), ends in _TIMM.items():
        if file in sys.modules and type(module) is getattr(sys.modules[file], name, None):
            return ends
    return _TORCHVISION.get(type(module))  # type: ignore[call-overload]


def residual_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that can lose their branch, in the order of the network."""
    return [name for name, module in model.named_modules() if is_residual_block(module)]


def is_residual_block(module: nn.Module) -> bool:
    """Can it lose its branch?"""
    return _ends(module) is not None or isinstance(module, ResidualBlock)


def branch_end(model: nn.Module, name: str) -> str:
    """Full name of the layer that ends the branch of the block `name`."""
    block = _block(model, name)
    ends = _ends(block)
    if ends is not None:
        return f"{name}.{ends.branch}"
    assert isinstance(block, ResidualBlock)
    return f"{name}.{block.branch_end}"


def drop_branch(model: nn.Module, name: str) -> None:
    """Replace the block `name` of `model` by its shortcut; ValueError for a module that is no residual block."""
    block = _block(model, name)
    ends = _ends(block)
    if ends is not None:
        downsample = block.downsample
        assert downsample is None or isinstance(downsample, nn.Module)
        small: nn.Module = ShortcutThenReLU(downsample, block.get_submodule(ends.activation))
    else:
        assert isinstance(block, ResidualBlock)
        small = block.shortcut_only()
    small.train(block.training)  # a new module is in training mode
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, small)


def _block(model: nn.Module, name: str) -> nn.Module:
    try:
        block = model.get_submodule(name)
    except AttributeError as error:
        raise Refusal(f"the plan drops {name!r}, which {type(model).__name__} does not have") from error
    if not is_residual_block(block):
        raise Refusal(f"{name!r} is a {type(block).__name__}, not a residual block that can lose its branch")
    return block
