"""As good as, no worse than: tests against a margin that was stated before the run (two one-sided tests)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pruning.errors import Refusal
from study.report.statistics.simultaneous import Null

LEVEL = 0.9  # of the interval: each one-sided test at 5 %


class Verdict(StrEnum):
    """What the 90 % interval says of a margin, higher values being better."""

    AS_GOOD = "as good"  # within the margin on both sides
    NO_WORSE = "no worse"  # by more than the margin; it may be better by more
    WORSE = "worse"  # by more than the margin
    NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Equivalence:
    """One difference against one margin. The p-values are one-sided, of this pair alone."""

    verdict: Verdict
    low: float  # of the 90 % interval
    high: float
    p_no_worse: float
    p_as_good: float


def against_margin(estimate: float, error: float, null: Null, margin: float) -> Equivalence:
    """Test a difference with standard error `error`, studentised distribution `null`, against -margin and +margin."""
    if margin <= 0:
        raise Refusal(f"margin={margin}: no worse than needs a margin above 0")
    half = null.quantile(LEVEL) * error
    low, high = estimate - half, estimate + half
    # as good is shown where both one-sided tests reject: the larger p-value is that of the two together
    above = _one_sided(estimate + margin, error, null)
    below = _one_sided(margin - estimate, error, null)
    verdict = Verdict.NOT_SHOWN
    if low > -margin:
        verdict = Verdict.AS_GOOD if high < margin else Verdict.NO_WORSE
    elif high < -margin:
        verdict = Verdict.WORSE
    return Equivalence(verdict, low, high, above, max(above, below))


def _one_sided(distance: float, error: float, null: Null) -> float:
    """p-value of the hypothesis that the true `distance` is 0 or less."""
    t = abs(distance) / error if error else float("inf") if distance else 0.0
    # `null` is two-sided and symmetric: half of its p lies on either side
    return null.p(t) / 2 if distance > 0 else 1 - null.p(t) / 2
