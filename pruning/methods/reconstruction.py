"""Regression-based feature reconstruction: He et al., Channel Pruning for Accelerating Very Deep Neural Networks,
ICCV 2017 (arXiv 1707.06168), sections 3.1 to 3.3.

Layer by layer, in forward order, the inputs of a layer with kernel W are chosen by
    min_beta  1/2 ||Y - sum_c beta_c A_c W_c^T||^2 + lambda ||beta||_1,
along the LARS path, from large lambda down to the first that leaves the wanted number of channels; then W is refitted
by least squares on the kept channels. A are the inputs of the network as pruned so far, Y the outputs (without
bias) of the *original* network at the same sampled positions. At the end of a residual branch Y also gets what the
shortcut lost: original minus present shortcut. With `select_inputs` a layer on a trunk that keeps its width (the first
of a block) reads only some of its channels (`Choice.select`).

Decisions and deviations. BatchNorm is not folded: Y is taken before it. What the shortcut lost is divided by the scale
of the BatchNorm behind the branch (and left out where that is under a thousandth of the largest), and that layer's
outputs weigh by it in the choice. W is refitted with a ridge towards the old kernel, and only the slices of the
pruned group where a layer reads other channels too; a layer with very many inputs (`least_squares.MOST_COLUMNS`)
gets one factor a channel instead. All output channels of a sampled position are used. A residual block is known by
its type (`blocks`): in a network taken apart by torch.fx, such as a detector's backbone, no shortcut is seen.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.methods.method import Choice, Method, MethodOptions, Request, fixed_counts, needed_calibration
from pruning.reconstruct.kernels import Consumer, consumers_of, rewritten, write_slices, zeros_held
from pruning.reconstruct.lars import lasso_support
from pruning.reconstruct.paired import observe_pair
from pruning.reconstruct.passes import Passes
from pruning.seeds import random_stream
from pruning.select import count_to_keep, eligible, given_ratio


@dataclass(frozen=True)
class Options(MethodOptions):
    """`positions_per_image`: output positions sampled in each image. `ridge`: penalty on the change of a weight in the
    refit, in units of the mean squared norm of a sample's inputs (0.1 did best from 100 to 3,000 samples on a small
    ResNet). `select_inputs`: fraction of input channels removed by convolution or pattern (`layer*.conv1`), for those
    that read a trunk which keeps its width."""

    positions_per_image: int = 10
    ridge: float = 0.1
    select_inputs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.positions_per_image < 1 or self.ridge < 0:
            raise Refusal(
                f"reconstruction: positions_per_image={self.positions_per_image} must be at least 1"
                f" and ridge={self.ridge} not negative"
            )
        for pattern, ratio in self.select_inputs.items():
            if not 0 <= ratio < 1:
                raise Refusal(f"reconstruction: select_inputs {pattern!r}: ratio {ratio} is outside 0 <= ratio < 1")


@dataclass(frozen=True)
class _Task:
    """Channels to choose: `n_keep` of `width`, read by `consumers`; in a group, or the inputs of one layer."""

    name: str
    width: int
    n_keep: int
    consumers: Sequence[Consumer]
    selects: bool = False


def prune(model: nn.Module, request: Request[Options]) -> Choice:
    """The kept channels of each group, the selected inputs, and the refitted weights of the layers that read them."""
    calibration = needed_calibration("reconstruction", request)
    tasks = _tasks(model, request)
    work = copy.deepcopy(model)
    passes_of_original = Passes(model, calibration)
    passes = Passes(work, calibration, beside=passes_of_original)
    kept: dict[str, dict[str, tuple[int, ...]]] = {"keep": {}, "select": {}}
    removed_inputs: dict[str, Tensor] = {}
    for task in tasks:
        keep = tuple(range(task.width))
        if task.n_keep < task.width:
            sums = observe_pair(
                passes_of_original,
                passes,
                task.consumers,
                positions_per_image=request.options.positions_per_image,
                generator=random_stream(request.seed, task.name),
            )
            # every reader is to be explained by the same channels: their sums add up, and each is refitted alone
            gram, target = (torch.stack(parts).sum(0) for parts in zip(*(s.contributions() for s in sums), strict=True))
            keep = lasso_channels(gram.cpu().numpy(), target.cpu().numpy(), task.n_keep)
            for consumer, own in zip(task.consumers, sums, strict=True):
                write_slices(work, consumer, own.refit(keep, request.options.ridge))
                gone = consumer.positions[sorted(set(range(task.width)) - set(keep))].flatten()
                removed_inputs[consumer.layer] = torch.cat([removed_inputs.get(consumer.layer, gone[:0]), gone])
            if request.finetune is not None:
                with zeros_held(work, removed_inputs):
                    request.finetune(work)
                passes.forget()
        kept["select" if task.selects else "keep"][task.name] = keep
    return Choice(kept["keep"], kept["select"], weights=rewritten(model, work))


def lasso_channels(gram: np.ndarray, target: np.ndarray, n_keep: int) -> tuple[int, ...]:
    """The first `n_keep` channels that have coefficients other than zero together on the LASSO path, ascending.

    `gram` (C, C), `target` (C,): inner products of the channels' contributions with each other and with the target.
    Where the path ends early (channels that answer nothing, or the same), those that best explain what is left
    follow; ties keep the lower index.
    """
    width = len(gram)
    if not 1 <= n_keep <= width:
        raise Refusal(f"n_keep={n_keep} is outside 1..{width}")
    if not (np.isfinite(gram).all() and np.isfinite(target).all()):
        raise Refusal("the responses to the calibration data are not finite")
    active, coefficients = lasso_support(gram, target, n_keep)
    left = np.abs(target - gram @ coefficients)  # the correlation with what is not explained yet
    others = sorted(set(range(width)) - set(active), key=lambda c: (-left[c], c))
    return tuple(sorted([*active, *others[: n_keep - len(active)]]))


def _tasks(model: nn.Module, request: Request[Options]) -> list[_Task]:
    """What to choose, in forward order; the inputs of a layer before its outputs."""
    groups = eligible(request.groups, request.selection)
    n_keep = fixed_counts("reconstruction", groups, request.selection)
    tasks = [_Task(g.name, g.width, n_keep[g.name], consumers_of(g)) for g in groups]
    tasks += _input_tasks(model, request, {g.name for g in groups})
    # Forward order matters: each layer is fitted to the original's output from what the layers before it give now. A
    # layer's inputs come before its outputs, since the refit of its inputs changes the kernels that compute these.
    order = {name: i for i, name in enumerate(dict(model.named_modules()))}
    return sorted(tasks, key=lambda t: (order[t.name], not t.selects))


def _input_tasks(model: nn.Module, request: Request[Options], narrowed: set[str]) -> list[_Task]:
    """The layers that `select_inputs` names, of those that read a group that keeps its width."""
    wanted = request.options.select_inputs
    reads = [(g.name, m.layer) for g in request.groups for m in g.members if m.side == "in"]
    # a layer that reads two groups, of which one is narrowed, would lose inputs twice, by two numberings
    readers = {layer for group, layer in reads if group not in narrowed}
    readers -= {layer for group, layer in reads if group in narrowed}
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in readers):
            choices = ", ".join(sorted(readers)) or "none"
            raise Refusal(f"reconstruction: select_inputs {pattern!r} matches no layer; layers: {choices}")
    tasks = []
    for name in sorted(readers):
        ratio = given_ratio(name, wanted)
        if ratio is not None:
            width = model.get_parameter(f"{name}.weight").shape[1]
            consumer = Consumer(name, torch.arange(width)[:, None])
            tasks.append(_Task(name, width, max(1, count_to_keep(width, ratio)), [consumer], selects=True))
    return tasks


def outline(model: nn.Module, request: Request[Options]) -> Choice:
    """As many channels and inputs as `prune` leaves, the first ones."""
    kept: dict[str, dict[str, tuple[int, ...]]] = {"keep": {}, "select": {}}
    for task in _tasks(model, request):
        kept["select" if task.selects else "keep"][task.name] = tuple(range(task.n_keep))
    return Choice(kept["keep"], kept["select"])


METHOD = Method(prune, Options, needs="activations", outline=outline, between_layers=True)
