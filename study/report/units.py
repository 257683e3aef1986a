"""Numbers as the report prints them: signs, SI prefixes, units, missing values."""

from __future__ import annotations

from study.report.statistics.families import Difference
from study.report.statistics.summary import Summary
from study.stages.progress import size_in_words

MISSING = "–"
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def prefix_for(value: float) -> tuple[float, str]:
    """The SI prefix that brings `value` to 1..1000: (1e9, "G") for 1.8e9."""
    return next(((size, name) for size, name in _PREFIXES if abs(value) >= size), (1.0, ""))


def si(value: float | None, unit: str = "") -> str:
    """Three significant digits and an SI prefix: "1.82 G", "563 M", "412 TMACs"."""
    if value is None:
        return MISSING
    size, prefix = prefix_for(value)
    scaled = value / size
    digits = 0 if abs(scaled) >= 100 or size == 1.0 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def score(value: float | None, decimals: int = 1) -> str:
    """An AP or an accuracy (0..100)."""
    return MISSING if value is None else _minus(f"{value:.{decimals}f}")


def signed(value: float, decimals: int = 1) -> str:
    """A difference with its sign: "+1.3", "−0.4"; with more decimals where it would read as 0."""
    return _minus(f"{value:+.{_decimals(value, decimals)}f}")


def percent(part: float | None, whole: float | None) -> str:
    """`part` as a share of `whole`: "27 %"; empty where either is missing or `whole` is 0."""
    return "" if part is None or not whole else f"{100 * part / whole:.0f} %"


def seconds(value: float | None) -> str:
    """Seconds: "1,234 s"; below ten with two digits, "0.052 s"."""
    if value is None:
        return MISSING
    return f"{value:,.0f} s" if value >= 10 else f"{value:.2g} s"


def milliseconds(value: float | None) -> str:
    """Milliseconds with one decimal."""
    return MISSING if value is None else f"{value:.1f} ms"


def memory(value: float | None) -> str:
    """Bytes with a unit: "3.4 MB"."""
    return MISSING if value is None else size_in_words(value)


def mean_std(summary: Summary | None, decimals: int = 1) -> str:
    """ "61.2 ± 0.8 (n = 2)", or "61.2 (n = 1)"."""
    if summary is None:
        return MISSING
    spread = "" if summary.std is None else f" ± {score(summary.std, decimals)}"
    return f"{score(summary.mean, decimals)}{spread} (n = {summary.n})"


def interval(difference: Difference, decimals: int = 1) -> str:
    """ "[−0.4, 3.0]", or why there is none; never a bound that reads 0.0 and is not."""
    if not difference.decidable:
        return "(one seed: no interval)"
    decimals = max(_decimals(difference.low, decimals), _decimals(difference.high, decimals))
    return _minus(f"[{difference.low:.{decimals}f}, {difference.high:.{decimals}f}]")


def shown(difference: Difference, decimals: int = 1) -> str:
    """What the interval says about the difference, in a few words."""
    if not difference.decidable:
        return "not decidable"
    return "shown" if difference.shown else f"not shown ({difference.detectable:.{decimals}f} would be)"


def p_value(p: float) -> str:
    """A p-value behind the letter: "= 0.032" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def value(item: str | int | float | None) -> str:
    """A value of a table: text as it is, a count with an SI prefix, any other number with four digits."""
    if item is None or isinstance(item, str):
        return item or MISSING
    return si(item) if isinstance(item, int) else _minus(f"{item:.4g}")


def _decimals(value: float, fewest: int) -> int:
    """`fewest` decimals, or up to three where fewer would turn a number that is not 0 into one that looks it."""
    return next((d for d in range(fewest, 3) if value == 0 or round(value, d) != 0), 3)


def _minus(text: str) -> str:
    """The typographic minus sign."""
    return text.replace("-", "−")
