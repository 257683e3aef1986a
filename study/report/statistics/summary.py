"""Means and spreads over seeds: pure functions, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of `n` values; one value has no deviation (None)."""

    mean: float
    std: float | None
    n: int


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a finite number; None, NaN and text are missing values, a bool is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def summarize(values: Iterable[float | None]) -> Summary | None:
    """Mean, sample standard deviation (n - 1) and n of the values that are there; None when none is."""
    present = [float(v) for v in values if v is not None and is_number(v)]
    if not present:
        return None
    n = len(present)
    # fsum does not depend on the order, so equal results in another order of seeds stay equal
    mean = math.fsum(present) / n
    if n == 1:
        return Summary(mean, None, 1)
    variance = math.fsum((v - mean) ** 2 for v in present) / (n - 1)
    return Summary(mean, math.sqrt(variance), n)


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there; None when none is."""
    summary = summarize(values)
    return None if summary is None else summary.mean
