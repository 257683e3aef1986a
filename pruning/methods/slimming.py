"""Network slimming: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017
(arXiv 1708.06519), section 3.

Training adds s * sum |gamma| over all BatchNorm scales to the loss: its subgradient s * sign(gamma), with sign(0) = 0,
is added after the backward pass, so momentum and learning rate act on it as on the rest. Then the channels with the
smallest |gamma| of the whole network go. Fine-tuning leaves the effect out.

What a BatchNorm decides: in plain networks, and inside residual blocks, the channels of the layer before it; in
pre-activation and dense networks, whose trunk keeps its width, which inputs the next layer reads (norm_channels.py). A
BatchNorm that ends a branch of a post-activation ResNet is shrunk in training, as in the released code, but decides
nothing in scope `inner`; in scope `all` the mean |gamma| of those that a shortcut adds up decides.

Deviations from the released code: it removes every |gamma| up to sorted[int(n * ratio)], so at least one more than
asked, and fails where a layer would lose all its channels. Here int(n * ratio) channels go (`exact=False`: its rule)
and a layer keeps its largest. `Selection.level` is not used: the paper's pool is the whole network, and the option
`level` says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.graph.norm_channels import beside_norms, eligible_units, keep_and_select, norm_channels, scaling_norms
from pruning.methods.method import Choice, Effect, Method, MethodOptions, Request
from pruning.select import Selection, eligible, keep_indices, select


@dataclass(frozen=True)
class SlimmingOptions(MethodOptions):
    """Options of network slimming.

    `s`: weight of the L1 norm of the scales, in units of the loss; the study uses 1e-4 for VGG-16/19 and 1e-5 for
    PreResNet, DenseNet and ImageNet VGG-11. `exact`: remove the count asked, or as the released code does. `level`:
    one ranking for the network, or the same share of every BatchNorm. `linear_norms`: BatchNorm1d behind linear layers
    count too (ImageNet VGG-11).
    """

    s: float = 1e-4
    exact: bool = True
    level: Literal["global", "layer"] = "global"
    linear_norms: bool = False

    def __post_init__(self) -> None:
        if not self.s >= 0:
            raise Refusal(f"s={self.s} must not be negative")
        if self.level not in ("global", "layer"):
            raise Refusal(f"level={self.level!r} is unknown; known: global, layer")
        if self.level == "layer" and not self.exact:
            raise Refusal("exact=False is the released rule for the whole network; it needs level 'global'")


class SlimmingEffect(Effect):
    """Adds s * sign(gamma) to the gradient of every BatchNorm scale; frozen ones are left alone."""

    def __init__(self, model: nn.Module, options: SlimmingOptions):
        norms = scaling_norms(model, linear=options.linear_norms)
        self.s = options.s
        self.gammas = [norm.weight for norm in norms.values() if norm.weight.requires_grad]
        if not self.gammas:
            raise Refusal(f"{type(model).__name__}: slimming has nothing to train, every BatchNorm scale is frozen")

    def after_backward(self) -> None:
        for gamma in self.gammas:
            if gamma.grad is not None:
                gamma.grad.add_(gamma.detach().sign(), alpha=self.s)


def prune(model: nn.Module, request: Request[SlimmingOptions]) -> Choice:
    """Keep the channels with the largest |gamma|; ValueError for a network without trainable scales."""
    options = request.options
    found = norm_channels(model, request.groups, linear=options.linear_norms)
    # a skipped unit is neither pruned nor in the pool
    units = eligible_units(found, request.groups, method="slimming")
    chosen = eligible(units, request.selection)
    scales = {item.unit.name: item.scales(model) for item in found}
    kept = keep_and_select(found, _select(scales, chosen, request.selection, options), model)
    beyond = {unit.name: unit.fixed for unit in units if unit.fixed}
    return Choice(*kept, beyond=beyond, leaves=beside_norms(model, request.groups))


def _select(
    scales: Mapping[str, Tensor], units: Sequence[Group], selection: Selection, options: SlimmingOptions
) -> dict[str, tuple[int, ...]]:
    if options.level == "global":
        selection = replace(selection, level="global")  # refuses ratios by layer and `round_to`
    if options.exact:
        return select(scales, units, selection)
    return above_threshold({unit.name: scales[unit.name] for unit in units}, selection.stage_ratios()[0])


def above_threshold(scales: Mapping[str, Tensor], ratio: float) -> dict[str, tuple[int, ...]]:
    """The released rule: keep what is strictly greater than sorted[int(n * ratio)], in every layer at least one."""
    pooled = torch.cat(list(scales.values())).sort().values
    threshold = pooled[int(len(pooled) * ratio)]
    kept: dict[str, tuple[int, ...]] = {}
    for name, scale in scales.items():
        above = tuple((scale > threshold).nonzero().flatten().tolist())
        kept[name] = above or keep_indices(scale, 1)
    return kept


def training_effect(model: nn.Module, request: Request[SlimmingOptions]) -> Effect:
    """The subgradient of the L1 norm of all scales, whatever is selected afterwards."""
    return SlimmingEffect(model, request.options)


METHOD = Method(
    prune=prune,
    options=SlimmingOptions,
    training_effect=training_effect,
    predefined=False,
    by_norms=True,
    own_level=lambda options: options.level,
)
