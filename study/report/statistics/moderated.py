"""Variances of many comparisons, moderated: each shrunk to the common one (Smyth 2004, limma).

The true variances are taken to scatter as scaled inverse chi-squared with d0 degrees of freedom around s0^2. Both are
estimated from the scatter of the logarithms, so this needs many comparisons: see `compare.over_grid`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from study.report.statistics.blocks import Array

SMALLEST = 1e-5  # of the median: a variance below it counts as this,
LEAST = 1e-24  # and one below this as well, where most are 0


@dataclass(frozen=True)
class Moderated:
    """Moderated variances and what they come from; `prior_df` is infinite where all variances are alike."""

    variances: Array
    df: Array
    prior_df: float
    prior_variance: float


def moderate(variances: Sequence[float], df: Sequence[int], most_df: float) -> Moderated:
    """Shrink sample variances with `df` (all >= 1) degrees of freedom to their common one.

    `most_df` are the degrees of freedom of all variances together, which no moderated one can exceed. It is their sum
    only where they are independent; variances of differences from one reference are not.
    """
    d = np.asarray(df, float)
    sample = np.asarray(variances, float)
    # Smyth, section 6.2: this has the mean log(s0^2) - digamma(d0 / 2) + log(d0 / 2), and the variance trigamma(d / 2)
    # + trigamma(d0 / 2). `excess` is the second part alone.
    scatter = np.log(np.maximum(sample, max(SMALLEST * np.median(sample), LEAST))) - digamma(d / 2) + np.log(d / 2)
    excess = float(scatter.var(ddof=1) - polygamma(1, d / 2).mean())
    if excess <= 0:
        # No more scatter than chance gives: d0 is infinite. The formula below then tends to exp(mean of the scatter);
        # the pooled variance estimates the same number with less error.
        common = float(sample @ d / d.sum())
        return Moderated(np.full(len(d), common), np.full(len(d), most_df), math.inf, common)
    prior_df = 2 * _inverse_trigamma(excess)
    prior = float(np.exp(scatter.mean() + digamma(prior_df / 2) - np.log(prior_df / 2)))
    # the posterior mean of Smyth: the prior counts as one more sample variance, with d0 degrees of freedom
    shrunk = (prior_df * prior + d * sample) / (prior_df + d)
    return Moderated(shrunk, np.minimum(prior_df + d, most_df), prior_df, prior)


def _inverse_trigamma(value: float) -> float:
    """x > 0 with trigamma(x) = value; trigamma falls from infinity to 0, between 1/x and 1/x + 1/x^2."""
    # where the two bounds are equal to the value
    low, high = 1 / value, (1 + math.sqrt(1 + 4 * value)) / (2 * value)
    return float(brentq(lambda x: float(polygamma(1, x)) - value, low, high, xtol=1e-12 * low))
