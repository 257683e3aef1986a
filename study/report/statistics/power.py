"""The smallest difference that a design would have found."""

from __future__ import annotations

from scipy.special import nctdtrinc

POWER = 0.8


def detectable(critical: float, df: float) -> float:
    """In standard errors: a difference this large has a t beyond `critical` with a probability of 80 %.

    From the noncentral t with `df` degrees of freedom; the other tail, below one in a million, is left out.
    """
    # the noncentrality, here the true difference in standard errors, with which t stays below `critical` in 20 of 100
    return float(nctdtrinc(df, 1 - POWER, critical))
