"""ThiNet: Luo et al., ThiNet: A Filter Level Pruning Method, ICCV 2017 (arXiv 1707.06342), sections 3.2 and 3.3.

Layer by layer, in forward order. With x[s, c] the contribution of input channel c to the *next* layer's output (before
the activation, without bias) at sample s, the removed set T grows greedily by the channel that least increases
    sum_s (sum_{c in T} x[s, c])^2.
Then the kept channels are rescaled by least squares, folded into the next layer's weights, and the network may be
fine-tuned (`Request.finetune`) before the next layer is looked at. With G = x^T x a candidate costs
G[c, c] + 2 sum_{t in T} G[c, t]; these row sums are updated, never recomputed.

Deviations. A sample is an image position with *all* output channels of the next layer, where the paper draws one. Where
several layers read a group, their sums add up, and each gets its own factors. How many images are seen, and of which
classes, is up to the calibration; the paper takes ten of each.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods.method import (
    Choice,
    Method,
    MethodOptions,
    Request,
    fixed_counts,
    needed_calibration,
    outline_of_shares,
)
from pruning.reconstruct.kernels import Consumer, consumers_of, kernel_slices, rewritten, write_slices, zeros_held
from pruning.reconstruct.least_squares import Sums, channel_factors, make_sums
from pruning.reconstruct.passes import Passes
from pruning.reconstruct.responses import Hook, draw_places, patches
from pruning.seeds import random_stream
from pruning.select import eligible


@dataclass(frozen=True)
class Options(MethodOptions):
    """`positions_per_image`: output positions sampled in each image; `rescale`: fold least-squares factors into the
    next layer at all."""

    positions_per_image: int = 10
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.positions_per_image < 1:
            raise Refusal(f"thinet: positions_per_image={self.positions_per_image} must be at least 1")


def prune(model: nn.Module, request: Request[Options]) -> Choice:
    """The kept channels of each group, and the rescaled weights of the layers that read them."""
    calibration = needed_calibration("thinet", request)
    groups = eligible(request.groups, request.selection)
    n_keep = fixed_counts("thinet", groups, request.selection)
    work = copy.deepcopy(model)
    passes = Passes(work, calibration)
    keep: dict[str, tuple[int, ...]] = {}
    removed_inputs: dict[str, Tensor] = {}
    for group in groups:
        keep[group.name] = tuple(range(group.width))
        if n_keep[group.name] == group.width:
            continue
        consumers = consumers_of(group)
        sums = _watch(passes, group, consumers, request)
        # several readers: the removed set is one, so their errors add up; each is rescaled by its own factors
        grams = [own.contributions()[0] for own in sums]
        keep[group.name] = keep_greedily(torch.stack(grams).sum(0), n_keep[group.name])
        for consumer, gram in zip(consumers, grams, strict=True):
            _rescale(work, consumer, gram, keep[group.name], request.options)
            # zero from here on, while `work` keeps its dense shape: the next layers see what the small network would
            gone = consumer.positions[_others(keep[group.name], group.width)].flatten()
            removed_inputs[consumer.layer] = torch.cat([removed_inputs.get(consumer.layer, gone[:0]), gone])
        if request.finetune is not None:
            with zeros_held(work, removed_inputs):
                request.finetune(work)
            passes.forget()
    return Choice(keep, weights=rewritten(model, work))


def keep_greedily(gram: Tensor, n_keep: int) -> tuple[int, ...]:
    """Channels left when those that least increase 1^T G_TT 1 are removed one by one; `gram` (C, C).

    Ties keep the lower index.
    """
    width = len(gram)
    if not 1 <= n_keep <= width:
        raise Refusal(f"n_keep={n_keep} is outside 1..{width}")
    if not torch.isfinite(gram).all():
        raise Refusal("the responses to the calibration data are not finite")
    # What removing c adds to 1^T G_TT 1, the squared norm of all that is missing then:
    # G[c, c] + 2 sum_{t in T} G[c, t]. It may be negative, where c cancels what went before.
    cost = gram.diagonal().clone()
    alive = torch.ones(width, dtype=torch.bool)
    for _ in range(width - n_keep):
        c = width - 1 - int(cost.flip(0).argmin())  # of equal costs the last channel goes
        alive[c] = False
        cost += 2 * gram[c]  # c is in T from now on
        cost[c] = torch.inf
    return tuple(alive.nonzero()[:, 0].tolist())


def _watch(passes: Passes, group: Group, consumers: list[Consumer], request: Request[Options]) -> list[Sums]:
    """Sums of the present responses of each layer that reads `group`."""
    generator = random_stream(request.seed, group.name)
    sums = [make_sums(kernel_slices(passes.model, c)) for c in consumers]

    def hook(consumer: Consumer, own: Sums) -> Hook:
        def add(layer: nn.Module, x: Tensor, output: Tensor) -> None:
            places = draw_places(output, request.options.positions_per_image, generator)
            own.add(patches(layer, x, places, consumer.positions))

        return add

    for _ in passes.observe({c.layer: hook(c, own) for c, own in zip(consumers, sums, strict=True)}):
        pass
    return sums


def _rescale(work: nn.Module, consumer: Consumer, gram: Tensor, keep: tuple[int, ...], options: Options) -> None:
    """Zero the kernel slices of removed channels and scale the kept ones, in place."""
    if options.rescale:
        factors = channel_factors(gram, gram.sum(1), keep)
    else:
        factors = torch.zeros_like(gram[0]).index_fill(0, torch.tensor(keep, device=gram.device), 1)
    slices = kernel_slices(work, consumer)
    write_slices(work, consumer, slices * factors.to(slices)[:, None])


def _others(keep: tuple[int, ...], width: int) -> list[int]:
    return sorted(set(range(width)) - set(keep))


METHOD = Method(prune, Options, needs="activations", outline=outline_of_shares("thinet"), between_layers=True)
