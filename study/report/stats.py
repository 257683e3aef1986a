"""Means, spreads and paired differences over seeds: pure functions, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from scipy.special import stdtrit

from pruning.errors import Refusal

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of `n` values; one value has no deviation (None)."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean paired difference over `n` seeds and its 95 % Student-t interval, None where n is 1."""

    mean: float
    interval: tuple[float, float] | None
    n: int

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval contains 0; None where there is no interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return low <= 0 <= high


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a finite number; None, NaN and text are missing values, a bool is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def t_quantile(n: int) -> float:
    """Two-sided 95 % quantile of Student's t with n - 1 degrees of freedom: 12.7 at n = 2, 4.30 at n = 3."""
    if n < 2:
        raise Refusal(f"n={n}: an interval needs at least 2 paired values")
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def summarize(values: Iterable[float | None]) -> Summary | None:
    """Mean, sample standard deviation (n - 1) and n of the values that are there; None when none is."""
    present = [float(v) for v in values if is_number(v)]
    if not present:
        return None
    n = len(present)
    mean = math.fsum(present) / n
    if n == 1:
        return Summary(mean, None, 1)
    variance = math.fsum((v - mean) ** 2 for v in present) / (n - 1)
    return Summary(mean, math.sqrt(variance), n)


def paired_difference(values: Mapping[int, float | None], reference: Mapping[int, float | None]) -> Difference | None:
    """Mean of `values[seed] - reference[seed]` over the seeds that both have, with a 95 % interval.

    Routes of one seed share data order and often whole stages, so differences are taken seed by seed before
    averaging. None when they have no seed in common.
    """
    pairs = [(a, b) for seed, a in values.items() if is_number(a) and is_number(b := reference.get(seed))]
    summary = summarize(a - b for a, b in pairs)
    if summary is None:
        return None
    if summary.std is None:
        return Difference(summary.mean, None, summary.n)
    # n counts pairs, not rows: a seed that one side lacks says nothing of the difference
    half_width = t_quantile(summary.n) * summary.std / math.sqrt(summary.n)
    return Difference(summary.mean, (summary.mean - half_width, summary.mean + half_width), summary.n)
