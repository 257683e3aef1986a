"""The findings of a report as claims: rows of numbers, for comparison.json and claims.csv."""

from __future__ import annotations

from collections.abc import Iterable

from study.report.claims.claim import Claim
from study.report.claims.judge import Finding
from study.report.statistics.power import POWER


def claims_of(findings: Iterable[Finding]) -> tuple[Claim, ...]:
    """The findings in their order."""
    return tuple(_claim(finding) for finding in findings)


def _claim(finding: Finding) -> Claim:
    difference = finding.difference
    known = difference if difference is not None and difference.decidable else None
    return Claim(
        statement=finding.statement.text,
        place=finding.place,
        verdict=finding.verdict,
        estimate=difference.estimate if difference else None,
        low=known.low if known else None,
        high=known.high if known else None,
        confidence=finding.confidence if known else None,
        n=difference.n if difference else 0,
        df=known.df if known else None,
        p=finding.p if known else None,
        detectable=known.detectable if known else None,
        power=POWER if known else None,
        method=known.method if known else "",
        scope=finding.statement.scope,
        source=finding.statement.source,
    )
