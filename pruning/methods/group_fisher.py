"""Group Fisher pruning: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021
(arXiv 2108.00708), section 3.

The importance of a channel is the sum over images of (sum over x of dL_n/dm_x)^2, where m_x = 1 are the masks on its
way into each layer x that reads it: what the loss would change by without it, by Fisher information. Coupled channels
share their masks. Divided by the activations (`by: memory`), or by the MACs, that the channel takes with it, counted in
the network as it is narrowed, the least goes.

This is done while the network trains: importance is gathered over `every` steps, then channels go (in all layers that
compute, normalise or read them they are zero and stay so), and it is gathered anew. Pruning cuts what went. Where
training left more to remove, or none of it was done, `prune` measures importance on the calibration data, in evaluation
mode, `rounds` times with the channels that went before at zero.

Departures. The paper starts from a trained network, prunes it at a learning rate of its own until the budget is met and
fine-tunes. Here the training before the pruning trains first and prunes from `start` to `until` of it, at its own
rates; the fine-tuning behind the pruning is the paper's. The paper removes one channel at a time; a training too short
for this loses as many at a time as it takes (`at_once` fixes the number). The budget is the selection's, in channels,
not in MACs; level `global` is the paper's ranking. A layer keeps at least one channel. A detector's heads are not
pruned. Its loss is that of a batch, as in the released code: an image's part of it is what reaches its features. In
float16 the loss scale multiplies the gradients; passes in which they overflow are left out.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.effect import Effect
from pruning.errors import Refusal
from pruning.gate_gradients import Gate, GateGradients, over_batches
from pruning.graph.layers import is_depthwise
from pruning.graph.members import Group
from pruning.methods.method import Choice, Method, MethodOptions, Request, needed_calibration
from pruning.narrowing import ChannelSlices, Narrowing, Price
from pruning.reconstruct.responses import Calibration
from pruning.select import eligible


@dataclass(frozen=True)
class GroupFisherOptions(MethodOptions):
    """`by`: what importance is divided by. `rounds`: how often `prune` measures it. The rest is of the training:
    `every`: steps between two removals, 10 in the released code. `start`, `until`: the part of the training in which
    channels go. `at_once`: channels of a removal, the paper's is 1; None: as many as it takes.
    """

    by: Price = "memory"
    rounds: int = 1
    every: int = 10
    start: float = 0.5
    until: float = 1.0
    at_once: int | None = None

    def __post_init__(self) -> None:
        if self.by not in ("memory", "macs", "none"):
            raise Refusal(f"group_fisher: by {self.by!r} is unknown; choices: memory, macs, none")
        for name, value in (("rounds", self.rounds), ("every", self.every), ("at_once", self.at_once)):
            if value is not None and value < 1:
                raise Refusal(f"group_fisher: {name}={value} must be at least 1")
        if not 0 <= self.start < self.until <= 1:
            raise Refusal(f"group_fisher: start={self.start} and until={self.until}: 0 <= start < until <= 1")


def prune(model: nn.Module, request: Request[GroupFisherOptions]) -> Choice:
    """Keep all but the least important channels; those that are zero go first.

    ValueError where more have to go and there is no calibration data.
    """
    chosen = eligible(request.groups, request.selection)
    work = copy.deepcopy(model).requires_grad_(False)
    narrowing = narrow(work, chosen, request)
    slices = {group.name: ChannelSlices.of(work, group) for group in chosen}
    # channels that training removed; one that is zero for another reason is no loss either
    narrowing.next({name: torch.where(own.zeros(), 0.0, torch.inf) for name, own in slices.items()}, narrowing.to_go)
    for rounds_left in range(request.options.rounds, 0, -1):
        if not narrowing.to_go:
            break
        calibration = needed_calibration("group_fisher", request)
        importance = importances(work, chosen, calibration)
        gone = narrowing.next(importance, math.ceil(narrowing.to_go / rounds_left))
        for name, channels in gone.items():
            slices[name].zero(channels)
    return Choice(narrowing.keep())


def narrow(model: nn.Module, groups: Sequence[Group], request: Request[GroupFisherOptions]) -> Narrowing:
    """The network before its first channel goes."""
    assert request.example is not None  # everything that prunes or trains has one
    return Narrowing(model, groups, request.selection, example=request.example, price=request.options.by)


def importances(model: nn.Module, groups: Sequence[Group], calibration: Calibration) -> dict[str, Tensor]:
    """The importance of each channel, (width,), by the group's name; the parameters of `model` must be frozen."""

    def squares(found: Tensor) -> Tensor:
        return (len(found) * found).square().sum(0)  # of a mean over the images, to which each adds its share

    gates = [gate for group in groups for gate in masks_of(model, group)]
    total, _ = over_batches("group_fisher", model, gates, calibration, squares)
    return total


def masks_of(model: nn.Module, group: Group) -> Iterator[Gate]:
    """The masks of a group's channels on their way into each convolution or linear layer; ValueError without one."""
    found = False
    for member in group.members:
        layer = dict(model.named_modules()).get(member.layer)
        # a depthwise convolution reads the channels that it hands on
        if isinstance(layer, nn.Conv2d | nn.Linear) and (member.side == "in" or is_depthwise(layer)):
            found = True
            yield Gate(group.name, member.layer, "in", member.positions, -1 if isinstance(layer, nn.Linear) else 1)
    if not found:
        raise Refusal(f"group_fisher: no convolution or linear layer reads the channels of {group.name}; skip it")


class GroupFisherEffect(Effect):
    """Gathers importance while the network trains, removes channels by it, and holds at zero what is removed."""

    uncompilable = "group_fisher listens to each layer while the network computes"

    def __init__(self, model: nn.Module, groups: Sequence[Group], request: Request[GroupFisherOptions]):
        self._model, self._options = model, request.options
        self._gates = [gate for group in groups for gate in masks_of(model, group)]
        self._slices = {group.name: ChannelSlices.of(model, group) for group in groups}
        self._narrowing = narrow(model, groups, request)
        self._importance = torch.zeros(
            sum(group.width for group in groups), dtype=torch.float64, device=next(model.parameters()).device
        )
        self._gradients: GateGradients | None = None  # while importance is gathered
        self._gone: list[tuple[Tensor, int, Tensor]] = []  # all that belongs to removed channels, see ChannelSlices.at
        self._first, self._removals = 0, 0
        self.steps_done = 0

    def plan_for(self, steps: int, optimizer: Optimizer | None = None) -> None:
        to_go, at_once = self._narrowing.to_go, self._options.at_once
        needed = min(1, to_go) if at_once is None else math.ceil(to_go / at_once)
        self._first, self._removals = self._schedule(steps)
        if self._removals >= needed:
            return
        enough = steps
        while self._schedule(enough)[1] < needed:
            enough += 1
        part = f"from {self._options.start:g} to {self._options.until:g} of it"
        raise Refusal(
            f"group_fisher: a training of {steps} steps has {self._removals} removals, one every {self._options.every}"
            f" steps {part}; {to_go} channels take {needed} of them, which are {enough} steps: train longer, or change"
            " the options every, start, until or at_once"
        )

    def _schedule(self, steps: int) -> tuple[int, int]:
        """The number of steps before importance is gathered, and the number of removals, `every` steps apart."""
        first = math.floor(self._options.start * steps)
        return first, (math.floor(self._options.until * steps) - first) // self._options.every

    def at_start(self) -> None:
        self._listen()

    def after_backward(self) -> None:
        if self._gradients is not None:
            self._gather(self._gradients.take())
        for tensor, dim, places in self._gone:
            if tensor.grad is not None:  # would count in the norm of all gradients
                tensor.grad.index_fill_(dim, places, 0)

    def _gather(self, passes: Sequence[Mapping[str, Tensor]]) -> None:
        """Add the squares of one step's images, which several passes and processes may share."""
        unread = [name for name in self._slices if any(name not in found for found in passes)]
        if unread:
            raise Refusal(f"group_fisher: the loss does not depend on the channels of {unread[0]}; skip it")
        # (N, channels of all groups): of a loss that is the mean over the step's images, or a process's over its own
        gradients = torch.cat([torch.cat([found[name] for name in self._slices], 1) for found in passes])
        n_images = _mean_over_processes(torch.full((), float(len(gradients)), device=gradients.device))
        new = (n_images * gradients).square().sum(0)
        self._importance += torch.where(new.isfinite().all(), new, 0.0)

    def after_step(self, lr: float) -> None:
        self.steps_done += 1
        number, between = divmod(self.steps_done - self._first, self._options.every)
        if not between and 1 <= number <= self._removals:
            self._remove(removals_left=self._removals - number + 1)
        for tensor, dim, places in self._gone:
            tensor.data.index_fill_(dim, places, 0)  # a zero gradient is not enough: momentum moves on what had some
        self._listen()

    def _remove(self, removals_left: int) -> None:
        widths = [len(left) for left in self._narrowing.left.values()]
        seen = _mean_over_processes(self._importance)  # each has its own images
        importance = dict(zip(self._slices, seen.cpu().split(widths), strict=True))
        n = self._options.at_once or math.ceil(self._narrowing.to_go / removals_left)
        self._narrowing.next(importance, n)
        self._importance.zero_()
        self._find_gone()

    def _find_gone(self) -> None:
        gone = {name: (~left).nonzero().flatten().tolist() for name, left in self._narrowing.left.items()}
        self._gone = [part for name, channels in gone.items() if channels for part in self._slices[name].at(channels)]

    def _listen(self) -> None:
        """Watch the network as long as there is something to decide, and no longer."""
        ahead = self._first <= self.steps_done < self._first + self._removals * self._options.every
        if ahead and self._narrowing.to_go:
            self._gradients = self._gradients or GateGradients(self._model, self._gates)
        elif self._gradients is not None:
            self._gradients.close()
            self._gradients = None

    def state_dict(self) -> dict[str, Tensor]:
        left = {f"left/{name}": left for name, left in self._narrowing.left.items()}
        return {"steps": torch.tensor(self.steps_done), "importance": self._importance, **left}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.steps_done = int(state["steps"])
        self._importance.copy_(state["importance"])
        for name in self._slices:
            self._narrowing.remove(name, (~state[f"left/{name}"]).nonzero().flatten().tolist())
        self._find_gone()
        self._listen()


def _mean_over_processes(values: Tensor) -> Tensor:
    """The mean of the values, in place, over processes that train together."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def training_effect(model: nn.Module, request: Request[GroupFisherOptions]) -> Effect:
    """Removal of the channels that `prune` cuts for the same request."""
    return GroupFisherEffect(model, eligible(request.groups, request.selection), request)


METHOD = Method(
    prune=prune,
    options=GroupFisherOptions,
    training_effect=training_effect,
    effect_reads=("ratio", "level", "scope", "skip", "layers", "round_to", "target_macs", "target_params"),
    needs="gradients",
)
