"""What a statement of the literature is: which of two sides scores higher, and for which networks that is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from study.report.statistics.summary import is_number

PREDEFINED, AUTOMATIC, UNSTRUCTURED = "structured-predefined", "structured-automatic", "unstructured"
Relation = Literal[">", "<", "≥", "≈"]
ABOVE: Final = ">"
BELOW: Final = "<"  # of slopes
NO_WORSE: Final = "≥"
COMPARABLE: Final = "≈"


@dataclass(frozen=True)
class Only:
    """A limit on one setting of a route: numbers from `low` to `high`, or texts that begin with one of `values`."""

    field: str
    low: float = 0.0
    high: float = float("inf")
    values: tuple[str, ...] = ()

    def fits(self, value: object) -> bool:
        """Whether a setting is within the limit; one that is not known is not."""
        if self.values:
            return isinstance(value, str) and value.startswith(self.values)
        return is_number(value) and self.low <= value <= self.high

    @property
    def text(self) -> str:
        """ "prune.ratio ≤ 0.5"."""
        if self.values:
            return f"{self.field} {' or '.join(self.values)}"
        # no statement has both bounds
        return f"{self.field} ≥ {self.low:g}" if self.low else f"{self.field} ≤ {self.high:g}"


@dataclass(frozen=True)
class Side:
    """One side of a statement: a route, and what singles out its rows among those of that route.

    `measure`: a column, or one of `measures.MEASURES`; empty for the topic's primary one. `methods`: pruning methods by
    name, empty for any. `extreme`: only where the statement's field has its smallest or largest value.
    """

    route: str
    measure: str = ""
    methods: tuple[str, ...] = ()
    extreme: Literal["", "smallest", "largest"] = ""
    only: tuple[Only, ...] = ()


@dataclass(frozen=True)
class Statement:
    """`better` stands in `relation` to `worse`; the two agree in all settings but those that set them apart.

    `kinds`: kinds of pruning that it is about; `data`: part of the name of the data set; empty for any.
    `field`: the setting that `Side.extreme` is about. `trend`: the statement is about the slope of better minus worse
    over `field`. `free`: further settings, or beginnings of their names, in which the sides may differ.
    `equal_cost`: the column of a cost at which the sides are compared; between two networks of the worse side its score
    is interpolated. `group`: the question; statements that oppose each other have the same and stand together.
    `runs`: the configs that run it.
    """

    better: Side
    worse: Side
    relation: Relation
    source: str
    kinds: tuple[str, ...] = ()
    data: str = ""
    field: str = ""
    trend: bool = False
    free: tuple[str, ...] = ()
    equal_cost: str = ""
    group: str = ""
    runs: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The statement as the report shows it: "scratch_b ≥ fine_tune", "fine_tune: top1 > pruned_top1"."""
        return self.in_words(str)

    def in_words(self, name: Callable[[str], str]) -> str:
        """The statement with the routes as `name` calls them."""
        better, worse = (self._side(side, name) for side in (self.better, self.worse))
        if self.trend:
            what = " − ".join(dict.fromkeys((better, worse)))
            return f"{what} {'rises' if self.relation == ABOVE else 'falls'} with {self.field}"
        if self.better.measure != self.worse.measure:
            return f"{name(self.better.route)}: {self.better.measure} {self.relation} {self.worse.measure}"
        at = f" at equal {self.equal_cost}" if self.equal_cost else ""
        return f"{better} {self.relation} {worse}{at}"

    @property
    def scope(self) -> str:
        """What it is said about, in words; empty where about anything."""
        return ", ".join(part for part in (*self.kinds, self.data) if part)

    @property
    def apart(self) -> tuple[str, ...]:
        """The settings in which the two sides may differ, or beginnings of their names."""
        found = list(self.free)
        if self.trend or self.better.extreme != self.worse.extreme:
            found.append(self.field)
        # with the method goes what is said for it alone, and may mean nothing to the other
        if self.better.methods != self.worse.methods:
            found += ["prune.method", "prune.options", "prune.level", "prune.calibration", "prune.files"]
        if self.equal_cost:
            found.append("prune")
        return tuple(found)

    def _side(self, side: Side, name: Callable[[str], str]) -> str:
        what = [f"{side.extreme} {self.field}"] if side.extreme else []
        what += [" or ".join(side.methods)] if side.methods else []
        what += [only.text for only in side.only]
        what += [side.measure] if side.measure else []
        return f"{name(side.route)} ({', '.join(what)})" if what else name(side.route)
