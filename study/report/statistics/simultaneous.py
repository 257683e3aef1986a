"""Distributions of a studentised difference where there is none, alone or as the largest of a family.

`Dunnett` is for k routes against one reference, `Range` for all pairs of k routes (Tukey), `StudentT` for one pair, or
for each of `times` pairs by Bonferroni. All are two-sided; a family shares one estimate of the variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, gammaln, ndtr, stdtr, stdtrit
from scipy.stats import studentized_range

Array = NDArray[np.float64]


class Null(Protocol):
    """What a difference over its standard error does where the routes do not differ."""

    def p(self, t: float) -> float:
        """Probability of a value (in a family: of a largest one) of `t` or more, in absolute terms."""

    def quantile(self, level: float) -> float:
        """The absolute value that is exceeded with probability 1 - level."""


@dataclass(frozen=True)
class StudentT:
    """Student's t of one pair; Bonferroni over `times` pairs."""

    df: float
    times: int = 1

    def p(self, t: float) -> float:
        return min(1.0, 2 * self.times * float(stdtr(self.df, -abs(t))))

    def quantile(self, level: float) -> float:
        return float(stdtrit(self.df, 1 - (1 - level) / self.times / 2))


@dataclass(frozen=True)
class Dunnett:
    """The largest of `k` differences from one reference (Dunnett 1955), with correlations of 1/2: no holes."""

    k: int
    df: float

    def p(self, t: float) -> float:
        return _between(_dunnett_tail(t, self.k, self.df), t, self.k, self.df)

    def quantile(self, level: float) -> float:
        return _quantile(self, level)


@dataclass(frozen=True)
class Range:
    """The largest of all differences between `k` routes (Tukey): the studentised range over the square root of 2."""

    k: int
    df: float

    def p(self, t: float) -> float:
        tail = float(studentized_range.sf(math.sqrt(2) * t, self.k, self.df))
        return _between(tail, t, self.k * (self.k - 1) // 2, self.df)

    def quantile(self, level: float) -> float:
        return _quantile(self, level)


def _between(tail: float, t: float, times: int, df: float) -> float:
    """A numerical tail probability, held between that of one pair and Bonferroni's: what integration loses far out."""
    return min(max(tail, StudentT(df).p(t)), StudentT(df, times).p(t))


@lru_cache(maxsize=1024)
def _quantile(null: Dunnett | Range, level: float) -> float:
    """By a root of the tail, between the quantiles of one pair and of Bonferroni."""
    times = null.k if isinstance(null, Dunnett) else null.k * (null.k - 1) // 2
    low, high = StudentT(null.df).quantile(level), StudentT(null.df, times).quantile(level)
    # a little beyond both ends, where rounding might leave the root outside
    return low if times == 1 else float(brentq(lambda t: null.p(t) - (1 - level), low * 0.999, high * 1.001, xtol=1e-9))


def _dunnett_tail(t: float, k: int, df: float) -> float:
    """1 - P(all |T| < t) by two one-dimensional integrals: over the reference's error z, and the deviation s.

    Given both, the k comparisons are independent: |X_i - z| < sqrt(2) t s for standard normal X_i.
    """
    z, z_weight, s, s_weight = _nodes(df)
    # rows are values of s, columns of z; a difference of two standard normal errors has the deviation sqrt(2)
    reach = math.sqrt(2) * t * s[:, None]
    outside = ndtr(z - reach) + ndtr(-z - reach)
    # 1 - (1 - outside)^k, without losing the digits of small tails
    # (held below 1, of which the logarithm here would be infinite)
    some = -np.expm1(k * np.log1p(-np.minimum(outside, 1 - 1e-16)))
    return float(s_weight @ some @ z_weight)


@lru_cache(maxsize=64)
def _nodes(df: float) -> tuple[Array, Array, Array, Array]:
    """Points and weights for a standard normal z and for s = sqrt(chi-squared(df) / df)."""
    # Gauss-Legendre: z within 9 deviations, s between its 1e-14 quantiles; what lies beyond shows in no p-value
    x, weight = np.polynomial.legendre.leggauss(128)
    z = 9 * x
    z_weight = 9 * weight * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    low, high = (math.sqrt(float(chdtri(df, tail)) / df) for tail in (1 - 1e-14, 1e-14))
    s = (high - low) / 2 * x + (high + low) / 2
    # in logarithms, since df^(df / 2) overflows for many degrees of freedom
    log_density = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2) + (df - 1) * np.log(s) - df * s * s / 2
    return z, z_weight, s, (high - low) / 2 * weight * np.exp(log_density)
