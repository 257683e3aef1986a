"""Sparse structure selection: Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018
(arXiv 1707.01213), sections 3.2 and 3.3.

Every structure gets a scale, 1 at first: a residual block on its branch, y = shortcut(x) + scale * branch(x), or a
channel behind its BatchNorm. The loss gains strength * sum |scale|. The scales are trained by accelerated proximal
gradient in the paper's modified form, whose soft threshold brings them to exact zero (plain SGD with an L1 term only
makes them small):

    z = soft(scale - lr * gradient, lr * strength);  v' = z - scale + momentum * v;  scale' = z + momentum * v'

Where the scales live: nowhere in the network. The scale of a branch multiplies the weight and bias of the layer that
ends it (gamma and beta of the last BatchNorm; in pre-activation blocks the last convolution), that of a channel its
gamma and beta. The effect keeps scales and unscaled tensors to itself: between backward pass and step the network holds
the unscaled tensors with their gradients by the chain rule, at all other times the products. So it trains as with
explicit scales, while every network that is evaluated, saved or copied is an ordinary one, with exact zeros in a dead
branch.

`prune` drops blocks whose branch is zero, or the asked fraction of blocks. The paper drops exact zeros only; the
fraction ranks blocks by the size of their folded last layer (`branch_scale`): a saved network has no scales apart.
What the shortcut of a dropped block computes stays, a projection included. Channels are ranked by |gamma| over the
network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pruning.errors import Refusal
from pruning.graph.blocks import branch_end, residual_blocks
from pruning.graph.dataflow import trace_flow
from pruning.graph.members import Group
from pruning.graph.norm_channels import beside_norms, eligible_units, keep_and_select, norm_channels, scaling_norms
from pruning.methods.method import Choice, Effect, Method, MethodOptions, Request
from pruning.select import count_to_keep, eligible, keep_indices, select


@dataclass(frozen=True)
class StructureOptions(MethodOptions):
    """Options of sparse structure selection.

    `structures`: `blocks`, `channels`, or `auto`: blocks where the network has residual blocks, channels where it has
    no shortcuts; one with shortcuts around blocks of unknown classes is refused, and must say `channels`. (A detector's
    backbone was taken apart by torch.fx and has no blocks: there `auto` is channels.)
    `strength`: weight of the L1 norm of the scales, in units of the loss (the paper's gamma). `momentum`: of the
    scales' own optimiser. `zeros_only`: remove exactly what training brought to zero; the ratio is not used then.
    """

    structures: Literal["auto", "blocks", "channels"] = "auto"
    strength: float = 0.01
    momentum: float = 0.9
    zeros_only: bool = False

    def __post_init__(self) -> None:
        if self.structures not in ("auto", "blocks", "channels"):
            raise Refusal(f"structures={self.structures!r} is unknown; known: auto, blocks, channels")
        if not self.strength >= 0 or not 0 <= self.momentum < 1:
            raise Refusal(f"strength={self.strength} must not be negative, momentum={self.momentum} in 0..1")


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """sign(x) * max(|x| - threshold, 0)."""
    return x.sign() * (x.abs() - threshold).clamp(min=0)


def accelerated_step(
    scale: Tensor, gradient: Tensor, velocity: Tensor, *, lr: float, strength: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """The next scale and velocity, by the formula above."""
    z = soft_threshold(scale - lr * gradient, lr * strength)
    # the products are written out, not fused: after two zero thresholds both terms cancel to exact zero
    carried = momentum * velocity
    velocity = (z - scale) + carried
    return z + momentum * velocity, velocity


def branch_scale(layer: nn.Module) -> float:
    """How large the layer that ends a branch is: exactly 0 where its branch is zero, about 1 at random initialisation.

    Root mean square of gamma and beta of a normalisation; of a convolution's weights, over sqrt(2 / (k * k * out)).
    """
    weight = layer.get_parameter("weight").detach().double()
    if weight.ndim == 1:
        beta = layer.get_parameter("bias").detach().double()
        return float((weight.square() + beta.square()).mean().sqrt())
    fan_out = weight.numel() / weight.shape[1]
    return float(weight.square().mean().sqrt()) / math.sqrt(2 / fan_out)


class StructureEffect(Effect):
    """Trains one scale for each block, or for each channel of each BatchNorm between two layers."""

    def __init__(self, model: nn.Module, options: StructureOptions):
        self.options = options
        self.per_channel = not _by_blocks(model, options)
        self._layers = {name: model.get_submodule(name) for name in _scaled_layers(model, self.per_channel)}
        self._scale: dict[str, Tensor] = {}
        self._velocity: dict[str, Tensor] = {}
        self._gradient: dict[str, Tensor] = {}
        self._unscaled: dict[str, Tensor] = {}  # by parameter name

    def scales(self) -> dict[str, Tensor]:
        """The scales by the name of the layer that they are folded into, shape () or (channels,)."""
        return {name: scale.clone() for name, scale in self._scale.items()}

    def at_start(self) -> None:
        for name, layer in self._layers.items():
            weight = layer.get_parameter("weight")
            self._scale[name] = weight.new_ones(len(weight) if self.per_channel else ())
            self._velocity[name] = torch.zeros_like(self._scale[name])
            for leaf, parameter in layer.named_parameters(recurse=False):
                self._unscaled[f"{name}.{leaf}"] = parameter.detach().clone()

    def after_backward(self) -> None:
        # The network holds p = scale * u for the unscaled u, and dL/dp. The chain rule gives dL/du = scale * dL/dp and
        # dL/dscale = sum of u * dL/dp over all tensors that it multiplies (for each channel, where it has one). The
        # optimiser is to step on u, with the weight decay and momentum of any other tensor.
        with torch.no_grad():
            for name, layer in self._layers.items():
                gradient = torch.zeros_like(self._scale[name])
                for leaf, parameter in layer.named_parameters(recurse=False):
                    unscaled = self._unscaled[f"{name}.{leaf}"]
                    parameter.copy_(unscaled)
                    if parameter.grad is not None:
                        product = parameter.grad * unscaled
                        gradient += product if self.per_channel else product.sum()
                        parameter.grad.mul_(self._scale[name])
                self._gradient[name] = gradient

    def after_step(self, lr: float) -> None:
        options = self.options
        with torch.no_grad():
            for name, layer in self._layers.items():
                gradient, before = self._gradient[name], (self._scale[name], self._velocity[name])
                stepped = accelerated_step(
                    before[0], gradient, before[1], lr=lr, strength=options.strength, momentum=options.momentum
                )
                finite = gradient.isfinite().all()  # not so where mixed precision skipped the step
                self._scale[name], self._velocity[name] = (
                    torch.where(finite, new, old) for new, old in zip(stepped, before, strict=True)
                )
                # u is kept apart, since a product with a scale of zero does not give it back
                for leaf, parameter in layer.named_parameters(recurse=False):
                    self._unscaled[f"{name}.{leaf}"] = parameter.detach().clone()
                    parameter.mul_(self._scale[name])

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"scale": self._scale, "velocity": self._velocity, "unscaled": self._unscaled}
        return {f"{part}/{name}": tensor for part, table in parts.items() for name, tensor in table.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        parts = {"scale": self._scale, "velocity": self._velocity, "unscaled": self._unscaled}
        for key, tensor in state.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor.clone()


def prune(model: nn.Module, request: Request[StructureOptions]) -> Choice:
    """Drop blocks, or remove channels, with the smallest scales; ValueError where nothing would be left."""
    if _by_blocks(model, request.options):
        return _prune_blocks(model, request)
    return _prune_channels(model, request)


def _prune_blocks(model: nn.Module, request: Request[StructureOptions]) -> Choice:
    if len(request.selection.stage_ratios()) > 1 or request.selection.layers:
        raise Refusal("structure_selection by blocks takes one ratio for the network, not one by stage or layer")
    blocks = residual_blocks(model)
    chosen = [g.name for g in eligible([Group(name, 1, (name,), ()) for name in blocks], request.selection)]
    scales = torch.tensor([branch_scale(model.get_submodule(branch_end(model, name))) for name in chosen])
    if request.options.zeros_only:
        drop = [name for name, scale in zip(chosen, scales.tolist(), strict=True) if scale == 0]
    else:
        n_keep = count_to_keep(len(chosen), request.selection.stage_ratios()[0])
        kept = keep_indices(scales, n_keep) if n_keep else ()
        drop = [name for i, name in enumerate(chosen) if i not in kept]
    if len(drop) == len(blocks):
        raise Refusal(f"no residual block of {len(blocks)} would keep its branch")
    return Choice(drop=tuple(drop))


def _prune_channels(model: nn.Module, request: Request[StructureOptions]) -> Choice:
    found = norm_channels(model, request.groups)
    units = eligible_units(found, request.groups, method="structure_selection")
    chosen, beyond = eligible(units, request.selection), {unit.name: unit.fixed for unit in units if unit.fixed}
    scales, leaves = {item.unit.name: item.scales(model) for item in found}, beside_norms(model, request.groups)
    if not request.options.zeros_only:
        kept = select(scales, chosen, replace(request.selection, level="global"))
        return Choice(*keep_and_select(found, kept, model), beyond=beyond, leaves=leaves)
    shifts = {item.unit.name: item.shifts(model) for item in found}
    kept = {}
    # a channel is zero where gamma and beta are: the scale multiplies both, and beta alone would still be a constant
    for unit in chosen:
        alive = ((scales[unit.name] != 0) | (shifts[unit.name] != 0)).nonzero().flatten().tolist()
        kept[unit.name] = tuple(alive) or keep_indices(scales[unit.name], 1)
    return Choice(*keep_and_select(found, kept, model), beyond=beyond, leaves=leaves)


def _by_blocks(model: nn.Module, options: StructureOptions) -> bool:
    found = residual_blocks(model)
    if options.structures == "blocks" and not found:
        raise Refusal(f"{type(model).__name__} has no residual block that can lose its branch; use 'channels'")
    taken_apart = any(isinstance(module, GraphModule) for module in model.modules())
    unknown = options.structures == "auto" and not found and not taken_apart
    if unknown and scaling_norms(model) and trace_flow(model).sums:
        raise Refusal(
            f"structure_selection: {type(model).__name__} has shortcuts, but no residual block of a class that can lose"
            " its branch, so structures 'auto' cannot mean blocks; say structures 'channels'"
        )
    return options.structures == "blocks" or (options.structures == "auto" and bool(found))


def _scaled_layers(model: nn.Module, per_channel: bool) -> list[str]:
    """The layers whose weight and bias the scales multiply; ValueError where they cannot be trained."""
    if per_channel:
        # only a channel that goes to layers and nowhere else can be removed; None is a sum, which adds it to others
        readers = trace_flow(model).readers
        names = [name for name in scaling_norms(model) if None not in readers.get(name, {None})]
    else:
        names = [branch_end(model, block) for block in residual_blocks(model)]
    for name in names:
        weight = dict(model.get_submodule(name).named_parameters(recurse=False)).get("weight")
        if weight is None or not weight.requires_grad:
            kind = type(model.get_submodule(name)).__name__
            raise Refusal(f"structure_selection cannot train a scale in {name}: its {kind} has a constant weight")
    if not names:
        raise Refusal(f"{type(model).__name__} has no structure that a scale could remove")
    return names


def training_effect(model: nn.Module, request: Request[StructureOptions]) -> Effect:
    """The scales of all structures and their accelerated proximal gradient, whatever is selected afterwards."""
    return StructureEffect(model, request.options)


METHOD = Method(
    prune=prune,
    options=StructureOptions,
    training_effect=training_effect,
    predefined=False,
    by_norms=True,
    own_level=lambda options: "global",
    sets_amount=lambda options: "training" if options.zeros_only else "selection",
)
