"""What a pruning method adds to the training before it, bound to the network of a stage."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.masks import Masks
from pruning.methods import Effect, get_method
from study.stages import settings
from study.stages.cost_left import at_share
from study.stages.network import Network


def method_effect(
    wanted: settings.Effect, model: nn.Module, network: Network, groups: Callable[[], Sequence[Group]], seed: int
) -> Effect:
    """The effect of a method on `model`, the part of `network` that trains.

    `groups`: what may be narrowed of it, asked for only where the effect depends on them. ValueError for what the
    method cannot act on.
    """
    method = get_method(wanted.method)
    assert method.training_effect is not None
    # groups are found by tracing, which takes seconds, and which not every network bears
    traced = method.effect_reads and not method.unstructured(wanted.method_options())
    request = wanted.request(groups() if traced else [], seed, network.example())
    request, _ = at_share(model, wanted.method, request, network)  # at the ratio of its target where it has one
    effect = method.training_effect(model, request)
    if network.masks is not None and effect.masks() is not None:
        raise Refusal(
            f"{wanted.method} removes single weights while it trains, and cannot begin with a network that lost some"
        )
    return effect


def trained_network(network: Network, effects: Sequence[Effect]) -> Network:
    """`network` as its training leaves it: with the masks that effects came to, on the CPU."""
    found = {name: mask.cpu() for effect in effects for name, mask in (effect.masks() or {}).items()}
    return replace(network, masks=Masks({**(network.masks or {}), **found})) if found else network
