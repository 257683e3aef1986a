"""The statements about pruned detectors. Opposites have one group."""

from __future__ import annotations

from study.report.claims.statement import ABOVE, BELOW, NO_WORSE, Only, Relation, Side, Statement

_LIU = "Liu et al., ICLR 2019"
_GIRISH = "Girish et al., CVPR 2021"
_RATIO = "prune.ratio"
_MODERATE, _HIGH = (Only(_RATIO, high=0.5),), (Only(_RATIO, low=0.75),)
_STUDIES = tuple("digits bccd voc07_r34 coco_r50".split())
_PRUNED = ("prune_then_transfer", "transfer_then_prune")


def _routes(better: str, relation: Relation, worse: str, source: str, group: str) -> Statement:
    return Statement(Side(better), Side(worse), relation, source, group=group, runs=_STUDIES)


def _measured(route: str, more: str, less: str, source: str) -> Statement:
    return Statement(Side(route, more), Side(route, less), ABOVE, source, runs=_STUDIES)


DETECTION_STATEMENTS = (
    _routes("scratch_e", NO_WORSE, "prune_then_transfer", f"{_LIU}: Scratch above Prune-C on detection", "scratch"),
    _routes("scratch_b", NO_WORSE, "prune_then_transfer", f"{_LIU}: Scratch above Prune-C on detection", "scratch"),
    _routes("prune_then_transfer", ABOVE, "transfer_then_prune", f"{_LIU}: Prune-C above Prune-D", "order"),
    _routes(
        *("transfer_then_prune", NO_WORSE, "prune_then_transfer"),
        f"{_GIRISH}, of single weights; Model Pruning with Model Transfer, 2023 (withdrawn submission), of filters",
        "order",
    ),
    Statement(
        Side("transfer_then_prune"),
        Side("transfer_then_prune"),
        BELOW,
        "our extension of Prune-C above Prune-D: the earlier a detector is pruned, the better",
        field="detector.prune_at",
        trend=True,
        group="order",
        runs=("digits_prune_at",),
    ),
    _routes("unpruned", ABOVE, "detect_from_scratch", "our control: pretraining is worth something", "pretraining"),
    *(
        Statement(
            Side(route, methods=("random",), only=_MODERATE),
            Side(route, methods=("l1_filter",), only=_MODERATE),
            NO_WORSE,
            "Mittal et al. 2018: random channels are as good as chosen ones, up to half",
            group="random channels",
        )
        for route in _PRUNED
    ),
    *(
        Statement(
            Side(route, methods=("l1_filter",), only=_HIGH),
            Side(route, methods=("random",), only=_HIGH),
            ABOVE,
            "PruningBench 2024 (withdrawn submission): random channels fall behind at 4x",
            group="random channels",
        )
        for route in _PRUNED
    ),
    *(
        _measured(route, f"AP lost on {few}", "AP lost", f"{_GIRISH}: {few} lose first")
        for few in ("small objects", "rare classes")
        for route in _PRUNED
    ),
    _measured(
        *("prune_then_transfer", "MACs saved", "latency saved"),
        "Liu et al., ICML 2021 (Group Fisher): latency falls less than MACs",
    ),
)
