"""The endless stream of training records, which depends on a seed and a position alone: it resumes exactly."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from detect.data.records import Record
from pruning.errors import Refusal
from training.seeding import seed_generators


class PositionSampler(Sampler[int]):
    """Positions of the endless stream from `start` on; each process takes every world-size-th."""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        position = self.start + comm.get_rank()
        while True:
            yield position
            position += comm.get_world_size()


class TrainStream(Dataset[Record]):
    """Position in the endless training stream -> mapped record, a pure function of (seed, position).

    Each epoch is a permutation drawn from (seed, epoch). `landscape` (N,): is each image wider than it is high? Such
    and others are put in different batches then, and the epoch's last, incomplete batch is left out. With
    `repeat_threshold` images of rare classes are there several times in an epoch, as often as Detectron2's
    RepeatFactorTrainingSampler says, so that epochs differ in length.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mapper: Callable[[Record], Record],
        *,
        seed: int,
        batch_size: int = 1,
        landscape: np.ndarray | None = None,
        repeat_threshold: float | None = None,
    ):
        if landscape is not None and len(records) < batch_size:
            raise Refusal(f"{len(records)} images do not fill one batch of {batch_size} grouped by aspect")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.batch_size = batch_size
        self.landscape = landscape
        self.repeats = None if repeat_threshold is None else _repeats(records, repeat_threshold)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))  # the epoch drawn last
        self._ends = [0]  # where epochs of different lengths end

    def __len__(self) -> int:
        """Records in one epoch, or in the first if they differ."""
        if self.repeats is not None:
            return len(self._epoch_order(0))
        n = len(self.records)
        return n if self.landscape is None else n - n % self.batch_size

    def __getitem__(self, position: int) -> Record:
        with seeded_rng(self.seed, position):
            return self.mapper(self.records[self.index(position)])

    def index(self, position: int) -> int:
        """The record at a position of the stream."""
        epoch, offset = divmod(position, len(self)) if self.repeats is None else self._place(position)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        return int(self._order[1][offset])

    def _place(self, position: int) -> tuple[int, int]:
        """Epoch and place in it, where epochs differ in length."""
        while self._ends[-1] <= position:
            self._ends.append(self._ends[-1] + len(self._epoch_order(len(self._ends) - 1)))
        epoch = bisect_right(self._ends, position) - 1
        return epoch, position - self._ends[epoch]

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """The records of an epoch in a random order; repeated ones as often as a rounding at random gives."""
        if self.repeats is None:
            return rng.permutation(len(self.records))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return rng.permutation(self.repeats._get_epoch_indices(generator).numpy())

    def _epoch_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        order = self._drawn(rng)
        if self.landscape is None:
            return order
        flags = self.landscape[order]
        batches, rest = [], []
        for group in (order[flags], order[~flags]):
            full = len(group) - len(group) % self.batch_size
            batches += [group[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
            rest += list(group[full:])
        rest = rest[: len(rest) - len(rest) % self.batch_size]
        batches += [np.array(rest[i : i + self.batch_size]) for i in range(0, len(rest), self.batch_size)]
        return np.concatenate([batches[i] for i in rng.permutation(len(batches))])


def _repeats(records: Sequence[Record], threshold: float) -> RepeatFactorTrainingSampler:
    """How often each record is drawn in an epoch on average: the square root of threshold / frequency, if above 1."""
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, threshold)
    return RepeatFactorTrainingSampler(factors, seed=0)  # the seed of an order that is not asked for


@contextmanager
def seeded_rng(seed: int, position: int) -> Iterator[None]:
    """Python's, NumPy's and PyTorch's CPU generators seeded from (seed, position), restored afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        seed_generators(seed, position)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
