"""A verdict as numbers: a row of claims.csv, and an entry of the claims of comparison.json."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Claim:
    """A statement with the verdict of a comparison at one grid point; numbers are None where nothing can be decided.

    `verdict`: "supported", "contradicted" or "undecided". `estimate`: the left side minus the right one, in points or
    the unit of a measure that the statement names; of a trend, the slope of that over the field.
    `low` and `high`: the interval that decides the verdict, which covers with the probability `confidence`; `method`:
    how it was made; `n`: seeds that both sides have; `p`: adjusted for the number of claims. `detectable`: the
    difference that would have been seen with the probability `power`. `scope`: what the statement is about.
    """

    statement: str
    place: str
    verdict: str
    estimate: float | None
    low: float | None
    high: float | None
    confidence: float | None
    n: int
    df: float | None
    p: float | None
    detectable: float | None
    power: float | None
    method: str
    scope: str
    source: str


CLAIM_COLUMNS = tuple(field.name for field in fields(Claim))
