"""How long stages take: as long as others of their kind did, or as a convolution that was timed here says."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain

import torch
from torch import nn

from study.plan.checks import device_type
from study.plan.estimate import Estimator
from study.stages.stage import Stage, device_of

# what one GPU keeps up in mixed precision where there is none to time: large networks reach several times as much, a
# CIFAR network at batch 64 less
GPU_FLOPS = 10e12
FLOP = 2  # of a multiply-add
_IMAGES, _CHANNELS, _SIZE = 16, 64, 32  # of the convolution that is timed
_LEAST_SECONDS = 0.1
_SHORT = 3.0  # seconds of a stage that trains nothing, until one of its kind was seen


class Pace:
    """Tells seconds; the more stages it is shown, the better. It knows nothing of what else the machine does.

    `macs`: the training MACs of each stage by its id. `flops`: what the machine does a second, of all jobs together.
    `slots`: stages at a time.
    """

    def __init__(self, macs: Mapping[str, int], flops: float, slots: int):
        self._macs = macs
        self._each = flops / (FLOP * slots)  # MACs a second of one stage
        self._slots = slots
        self._seen: dict[str, list[tuple[int, float]]] = defaultdict(list)  # (MACs, seconds) of stages by their kind

    @property
    def source(self) -> str:
        """What its answers rest on, in words."""
        seen = sum(len(pairs) for pairs in self._seen.values())
        return f"the {seen} that are done" if seen else f"{self._each * self._slots * FLOP / 1e9:.0f} GFLOP/s, timed"

    def learn(self, stage: Stage, seconds: float) -> None:
        """A stage took so long."""
        self._seen[stage.kind].append((self._macs.get(stage.id, 0), seconds))

    def left(self, stages: Iterable[Stage], spent: float = 0.0) -> float:
        """Seconds until these stages are done, of which those under way have had `spent`."""
        # As if all slots were busy to the end. Stages that wait for others leave some idle, so it may take longer.
        return max(0.0, sum(self._seconds(stage) for stage in stages) - spent) / self._slots

    def _seconds(self, stage: Stage) -> float:
        macs = self._macs.get(stage.id, 0)
        # what trains is compared with what trains: a detector's MAC takes as long as a classifier's, or nearly
        seen = self._seen.get(stage.kind, [])
        alike = seen or list(chain(*self._seen.values()) if macs else ())
        work, seconds = sum(pair[0] for pair in alike), sum(pair[1] for pair in alike)
        if macs and work:
            return macs * seconds / work
        if macs:
            return macs / self._each
        return seconds / len(alike) if alike else _SHORT


def pace_of(stages: Sequence[Stage], estimator: Estimator) -> Pace:
    """The pace of these stages on their machine, with what those that are done say of it."""
    machine, done, macs = estimator.machine, [], {}
    for stage in stages:
        with suppress(ValueError):  # a damaged result, or a length that another stage's result decides: not counted
            if stage.run(estimator.runs).done:
                result = stage.run(estimator.runs).read_result()
                macs[stage.id] = result["train_macs"]
                done.append((stage, result["seconds"]))
            else:
                macs[stage.id] = estimator.estimate(stage).train_macs
    slots = machine.slurm.jobs if machine.executor == "slurm" else machine.n_jobs
    absent = device_type(machine) == "cuda" and not torch.cuda.is_available()
    pace = Pace(macs, GPU_FLOPS if absent else measured_flops(device_of(machine)), slots)
    for stage, seconds in done:
        pace.learn(stage, seconds)
    return pace


@cache
def measured_flops(device: str) -> float:
    """Floating-point operations a second of a convolution's training step on this device, in a tenth of a second."""
    layer = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1).to(device)
    # with gradients of the images too, which every layer but the first one of a network has to compute
    images = torch.zeros(_IMAGES, _CHANNELS, _SIZE, _SIZE, device=device, requires_grad=True)
    macs = 3 * _IMAGES * _SIZE**2 * _CHANNELS**2 * 9  # forward, and the gradients of images and of weights

    seconds, steps = 0.0, 0
    while seconds < _LEAST_SECONDS:
        start = time.perf_counter()
        layer(images).sum().backward()
        assert layer.weight.grad is not None
        layer.weight.grad.sum().item()  # read, so that a GPU has done it
        seconds += time.perf_counter() - start if steps else 0.0  # the first one warms up
        steps += 1
    return FLOP * macs * (steps - 1) / seconds
