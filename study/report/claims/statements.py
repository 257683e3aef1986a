"""Statements of the literature as data: which of two sides scores higher, and for which networks that is said.

Section numbers without a name are those of Liu et al., Rethinking the Value of Network Pruning, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

PREDEFINED, AUTOMATIC, UNSTRUCTURED = "structured-predefined", "structured-automatic", "unstructured"
Relation = Literal[">", "≥", "≈"]
ABOVE: Final = ">"
NO_WORSE: Final = "≥"
COMPARABLE: Final = "≈"
RATE = "classifier.train.lr"  # a grid field, or what variants of a study differ in


@dataclass(frozen=True)
class Side:
    """One side of a statement: a route, and what singles out its rows among those of that route.

    `measure`: its column, empty for the topic's primary one. `methods`: pruning methods by name, empty for any.
    `extreme`: only where the statement's grid field has its smallest or largest value.
    """

    route: str
    measure: str = ""
    methods: tuple[str, ...] = ()
    extreme: Literal["", "smallest", "largest"] = ""


@dataclass(frozen=True)
class Statement:
    """`better` stands in `relation` to `worse`; the two agree in all grid fields but those that set them apart.

    `kinds`: kinds of pruning that it is about; `data`: part of the name of the data set; empty for any.
    `field`: the grid field that `Side.extreme` is about. `equal_cost`: only where the sides' costs differ by at most
    a twentieth.
    """

    better: Side
    worse: Side
    relation: Relation
    source: str
    kinds: tuple[str, ...] = ()
    data: str = ""
    field: str = ""
    equal_cost: str = ""

    @property
    def text(self) -> str:
        """The statement as the report shows it: "scratch_b ≥ fine_tune"."""
        return self.in_words(str)

    def in_words(self, name: Callable[[str], str]) -> str:
        """The statement with the routes as `name` calls them."""
        if self.better.measure and self.better.route == self.worse.route:
            return f"{self.better.measure} {self.relation} {self.worse.measure}"
        return f"{self._side(self.better, name)} {self.relation} {self._side(self.worse, name)}"

    @property
    def scope(self) -> str:
        """What it is said about, in words; empty where about anything."""
        return ", ".join(part for part in (*self.kinds, self.data) if part)

    def _side(self, side: Side, name: Callable[[str], str]) -> str:
        what = [f"{side.extreme} {self.field}"] if side.extreme else []
        what += [" or ".join(side.methods)] if side.methods else []
        what += [side.measure] if side.measure else []
        return f"{name(side.route)} ({', '.join(what)})" if what else name(side.route)


_LIU = "Liu et al., ICLR 2019"


def _routes(better: str, relation: Relation, worse: str, source: str, *kinds: str, data: str = "") -> Statement:
    return Statement(Side(better), Side(worse), relation, source, kinds, data)


def _by_rate(better: Side, relation: Relation, worse: Side, claim: str, *kinds: str) -> Statement:
    """A statement about tickets at the smallest and the largest learning rate of the grid."""
    source = f"{_LIU}, section 6, on Frankle & Carbin, ICLR 2019: {claim}"
    return Statement(better, worse, relation, source, kinds, field=RATE)


def _designs(control: str, budget: str) -> Statement:
    """A guided design against the control of the same cost, both trained from scratch."""
    source = f"{_LIU}, section 5: designs guided by pruning, at equal {budget}"
    better, worse = Side("scratch_e", methods=("guided",)), Side("scratch_e", methods=(control,))
    return Statement(better, worse, NO_WORSE, source, equal_cost=budget)


DETECTION_STATEMENTS = (
    _routes("scratch_e", NO_WORSE, "prune_then_transfer", f"{_LIU}: Scratch above Prune-C on detection"),
    _routes("scratch_b", NO_WORSE, "prune_then_transfer", f"{_LIU}: Scratch above Prune-C on detection"),
    _routes("prune_then_transfer", ABOVE, "transfer_then_prune", f"{_LIU}: Prune-C above Prune-D on detection"),
    _routes("unpruned", ABOVE, "detect_from_scratch", "our control: pretraining is worth something"),
)

_WEIGHTS_ON_CIFAR = f"{_LIU}, section 4.3: on CIFAR, at moderate ratios"
_WEIGHTS_ON_IMAGENET = f"{_LIU}, section 4.3: on ImageNet fine-tuning stays ahead"
_TICKET_SMALL, _TICKET_LARGE = Side("ticket", extreme="smallest"), Side("ticket", extreme="largest")
_RANDOM_SMALL, _RANDOM_LARGE = Side("scratch_e", extreme="smallest"), Side("scratch_e", extreme="largest")
CLASSIFICATION_STATEMENTS = (
    _routes("scratch_e", NO_WORSE, "fine_tune", f"{_LIU}, section 4.1", PREDEFINED),
    _routes("scratch_b", NO_WORSE, "fine_tune", f"{_LIU}, section 4.1", PREDEFINED),
    _routes("scratch_e", COMPARABLE, "fine_tune", f"{_LIU}, section 4.2", AUTOMATIC),
    _routes("scratch_b", NO_WORSE, "fine_tune", f"{_LIU}, section 4.2", AUTOMATIC),
    _routes("scratch_e", COMPARABLE, "fine_tune", _WEIGHTS_ON_CIFAR, UNSTRUCTURED, data="cifar"),
    _routes("scratch_b", NO_WORSE, "fine_tune", _WEIGHTS_ON_CIFAR, UNSTRUCTURED, data="cifar"),
    _routes("fine_tune", ABOVE, "scratch_e", _WEIGHTS_ON_IMAGENET, UNSTRUCTURED, data="imagenet"),
    _routes("fine_tune", ABOVE, "scratch_b", _WEIGHTS_ON_IMAGENET, UNSTRUCTURED, data="imagenet"),
    _by_rate(_TICKET_SMALL, ABOVE, _RANDOM_SMALL, "the ticket helps at the small rate", UNSTRUCTURED),
    _by_rate(_RANDOM_SMALL, NO_WORSE, _TICKET_SMALL, "for channels not at the small rate either", PREDEFINED),
    _by_rate(_RANDOM_LARGE, NO_WORSE, _TICKET_LARGE, "the ticket does not help at the large rate"),
    _by_rate(_RANDOM_LARGE, ABOVE, _TICKET_SMALL, "the large rate is better anyway"),
    _designs("uniform", "macs"),
    _designs("uniform_weights", "params"),
    Statement(
        Side("fine_tune", "recalibrated_top1"),
        Side("fine_tune", "pruned_top1"),
        ABOVE,
        "our control: BatchNorm's statistics no longer fit after pruning",
    ),
)
