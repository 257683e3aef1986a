"""Group norms with sparse training: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023
(arXiv 2301.12900), section 3.3.

A channel goes through layers that compute, normalise and read it; its importance is I_k = sum of w^2 over all their
weights that belong to it, over the mean of its group, so that groups compare. The lowest go. Before that,
training makes whole channels small: the gradient of each of these weights gains strength * gamma_k * w with

    gamma_k = 2 ^ (alpha * (max I - I_k) / (max I - min I))

so that small channels are pressed 2 ^ alpha times as hard as large ones (the factor 2 of the
derivative is part of `strength`, as in the released code). gamma is no part of the derivative. It is of the weights of
each step; the released code renews it each epoch. Fine-tuning leaves the effect out.

Weights are those of convolutions, linear layers and normalisations; biases are not counted. A channel that a layer
behind a flattened map reads owns all its places there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.layers import channel_axis
from pruning.graph.members import Group, Member
from pruning.methods.method import Effect, Method, MethodOptions, Request, by_score
from pruning.select import eligible


@dataclass(frozen=True)
class GroupNormOptions(MethodOptions):
    """`strength`: factor of the sparse training's gradient, 0 for none. `alpha`: how much harder small channels are
    pressed, as a power of 2; the paper's is 4.
    """

    strength: float = 5e-4
    alpha: float = 4.0

    def __post_init__(self) -> None:
        if not self.strength >= 0 or not self.alpha >= 0:
            raise Refusal(f"strength={self.strength} and alpha={self.alpha} must not be negative")


@dataclass(frozen=True)
class _Slices:
    """The weights of one member of a group: along `axis` of `weight`, the places (width, n) of each channel."""

    weight: Tensor
    axis: int
    places: Tensor

    @classmethod
    def of(cls, model: nn.Module, member: Member) -> "_Slices | None":
        """None for a layer without a weight for each channel."""
        owner, _, leaf = member.layer.rpartition(".")
        bare = dict(model.get_submodule(owner).named_parameters(recurse=False)).get(leaf)
        weight = getattr(model.get_submodule(member.layer), "weight", None) if bare is None else bare
        if not isinstance(weight, Tensor) or weight.numel() == 1:
            return None
        axis = channel_axis(weight) if bare is not None else 1 if member.side == "in" else 0
        return cls(weight, axis, torch.tensor(member.positions, device=weight.device))

    def squares(self) -> Tensor:
        """Sum of squares for each channel, (width,)."""
        others = [d for d in range(self.weight.ndim) if d != self.axis]
        squares = self.weight.detach().double().square()
        return (squares.sum(others) if others else squares)[self.places].sum(1)

    def press(self, factors: Tensor) -> None:
        """Add the channels' factors (width,) times their weights to the gradient, if there is one."""
        if self.weight.grad is None:
            return
        along = torch.zeros(self.weight.shape[self.axis], dtype=self.weight.dtype, device=self.weight.device)
        along[self.places] = factors.to(along)[:, None]
        shape = [-1 if d == self.axis else 1 for d in range(self.weight.ndim)]
        self.weight.grad.addcmul_(self.weight.detach(), along.view(shape))


def importance(slices: Sequence[_Slices]) -> Tensor:
    """I_k of each channel, (width,)."""
    return torch.stack([part.squares() for part in slices]).sum(0)


def score(model: nn.Module, group: Group, *, options: MethodOptions | None = None, seed: int = 0) -> Tensor:
    """Importance of each channel over the group's mean, shape (width,)."""
    found = importance(_slices(model, group)).cpu()
    return found / found.mean().clamp(min=torch.finfo(found.dtype).tiny)


def _slices(model: nn.Module, group: Group) -> list[_Slices]:
    return [part for member in group.members if (part := _Slices.of(model, member)) is not None]


def pressure(found: Tensor, alpha: float) -> Tensor:
    """gamma of each channel from its importance, between 1 and 2 ^ alpha; 1 where all channels are alike."""
    spread = found.max() - found.min()
    return torch.exp2(alpha * (found.max() - found) / spread.clamp(min=torch.finfo(found.dtype).tiny))


class GroupNormEffect(Effect):
    """Presses the channels of the groups towards zero, the small ones harder."""

    def __init__(self, model: nn.Module, groups: Sequence[Group], options: GroupNormOptions):
        self.options = options
        self._groups = [_slices(model, group) for group in groups]
        if not self._groups:
            raise Refusal(f"{type(model).__name__}: group_norm has no channels to make small")

    def after_backward(self) -> None:
        with torch.no_grad():
            for slices in self._groups:
                factors = self.options.strength * pressure(importance(slices), self.options.alpha)
                for part in slices:
                    part.press(factors)


def training_effect(model: nn.Module, request: Request[GroupNormOptions]) -> Effect:
    """The pressure on the channels that the selection is about."""
    return GroupNormEffect(model, eligible(request.groups, request.selection), request.options)


METHOD = Method(
    prune=by_score(score),
    options=GroupNormOptions,
    training_effect=training_effect,
    effect_reads=("scope", "skip"),
)
