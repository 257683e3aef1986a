"""The statements about pruned classifiers. Opposites have one group. Section numbers are those of Liu et al."""

from __future__ import annotations

from study.report.claims.statement import (
    ABOVE,
    AUTOMATIC,
    BELOW,
    COMPARABLE,
    NO_WORSE,
    PREDEFINED,
    UNSTRUCTURED,
    Only,
    Relation,
    Side,
    Statement,
)

_LIU = "Liu et al., ICLR 2019"
_LE = "Le & Hua, ICLR 2021"
RATIO, EPOCHS, RATE = "prune.ratio", "classifier.train.epochs", "classifier.train.lr"
_FT, _FT_EPOCHS = "classifier.fine_tune.lr", "classifier.fine_tune.epochs"
_SCHEDULE = ("classifier.fine_tune.schedule", "classifier.fine_tune.milestones", "classifier.fine_tune.warmup")
_RENDA, _RETRAIN = "Renda et al., ICLR 2020", "classifier.retrain"
_RETRAINED = (_RETRAIN, _FT, "classifier.fine_tune.gamma", *_SCHEDULE)
_STRUCTURED = (PREDEFINED, AUTOMATIC)
_HERE = ("claims_digits", "claims_cifar_subset", "claims_cifar10")
_RETRAINING = ("digits_retraining",)
_VGG = (Only("classifier.arch", values=("vgg",)),)
_RESIDUAL = (Only("classifier.arch", values=("cifar_resnet", "resnet", "cifar_preresnet", "preresnet", "densenet")),)
_MODERATE, _HIGH = (Only(RATIO, high=0.5),), (Only(RATIO, low=0.75),)
_OWN = (Only("guide", values=("own",)),)
_OTHER = (Only("guide", values=("other",)),)


def _routes(
    better: str, relation: Relation, worse: str, source: str, kind: str, group: str = "", data: str = ""
) -> Statement:
    runs = _HERE[1:] if data == "cifar" else ("imagenet_magnitude",) if data else _HERE
    return Statement(Side(better), Side(worse), relation, source, (kind,), data, group=group, runs=runs)


def _by_rate(better: Side, relation: Relation, worse: Side, claim: str, *kinds: str) -> Statement:
    """A statement about tickets at the smallest and the largest learning rate of the study."""
    source = f"{_LIU}, section 6, on Frankle & Carbin, ICLR 2019: {claim}"
    return Statement(better, worse, relation, source, kinds, field=RATE, group="tickets", runs=_HERE)


def _designs(design: Side, other: Side, cost: str, claim: str, *kinds: str, group: str = "designs") -> Statement:
    """Two designs of the same cost, both trained from scratch."""
    return Statement(
        design, other, NO_WORSE, f"{_LIU}, section 5: {claim}", kinds, free=("guide",), equal_cost=cost, group=group,
        runs=_HERE,
    )  # fmt: skip


def _fine_tuned(*methods: str, only: tuple[Only, ...] = (), extreme: str = "") -> Side:
    return Side("fine_tune", methods=methods, only=only, extreme=extreme)  # type: ignore[arg-type]


def _retrained(regime: str, *methods: str) -> Side:
    return _fine_tuned(*methods, only=(Only(_RETRAIN, values=(regime,)),))


def _by_regime(better: Side, relation: Relation, worse: Side, source: str, group: str = "retraining") -> Statement:
    """A statement about regimes of retraining for equally many epochs, or about one of them and another route."""
    return Statement(better, worse, relation, source, free=_RETRAINED, group=group, runs=_RETRAINING)


def _scratch(*methods: str, only: tuple[Only, ...] = (), measure: str = "") -> Side:
    return Side("scratch_e", measure, methods, only=only)


def _margin(relation: Relation, claim: str, kind: str) -> Statement:
    """How the lead of training from scratch changes with the ratio."""
    source = f"{_LIU}, {claim}"
    return Statement(
        Side("scratch_e"), Side("fine_tune"), relation, source, (kind,), field=RATIO, trend=True, group="margin",
        runs=_HERE,
    )  # fmt: skip


_ON_CIFAR = f"{_LIU}, section 4.3: on CIFAR, at moderate ratios"
_ON_IMAGENET = f"{_LIU}, section 4.3: on ImageNet fine-tuning stays ahead"
_VALUE = "scratch against fine-tuning"
_TICKET_SMALL, _TICKET_LARGE = Side("ticket", extreme="smallest"), Side("ticket", extreme="largest")
_RANDOM_SMALL, _RANDOM_LARGE = Side("scratch_e", extreme="smallest"), Side("scratch_e", extreme="largest")
_MOVED, _NEAR_ZERO = "distance from the start", "weights near zero"

_SCRATCH = (
    _routes("scratch_e", NO_WORSE, "fine_tune", f"{_LIU}, section 4.1", PREDEFINED, _VALUE),
    _routes("scratch_b", NO_WORSE, "fine_tune", f"{_LIU}, section 4.1", PREDEFINED, _VALUE),
    Statement(
        _fine_tuned(extreme="largest"), Side("scratch_e"), NO_WORSE,
        f"{_LE}, and Wang et al. 2023 (preprint), against section 4.1: fine-tuning lacks the large rate. There at equal"
        " epochs of retraining, here fine-tuning is the shorter",
        _STRUCTURED, field=_FT, free=_SCHEDULE, group=_VALUE, runs=_HERE,
    ),
    _routes("scratch_e", COMPARABLE, "fine_tune", f"{_LIU}, section 4.2", AUTOMATIC, _VALUE),
    _routes("scratch_b", NO_WORSE, "fine_tune", f"{_LIU}, section 4.2", AUTOMATIC, _VALUE),
    _routes("scratch_e", COMPARABLE, "fine_tune", _ON_CIFAR, UNSTRUCTURED, _VALUE, data="cifar"),
    _routes("scratch_b", NO_WORSE, "fine_tune", _ON_CIFAR, UNSTRUCTURED, _VALUE, data="cifar"),
    _routes("fine_tune", ABOVE, "scratch_e", _ON_IMAGENET, UNSTRUCTURED, _VALUE, data="imagenet"),
    _routes("fine_tune", ABOVE, "scratch_b", _ON_IMAGENET, UNSTRUCTURED, _VALUE, data="imagenet"),
    *(
        _routes("scratch_b", NO_WORSE, "scratch_e", f"{_LIU}, section 4: Scratch-B at or above Scratch-E", kind)
        for kind in (PREDEFINED, AUTOMATIC, UNSTRUCTURED)
    ),
    *(
        Statement(
            Side(scratch, methods=("soft_filter",)), Side("pruned", methods=("soft_filter",)), NO_WORSE,
            f"{_LIU}, appendix on soft filter pruning", runs=("cifar10_soft_filter", *_HERE),
        )
        for scratch in ("scratch_e", "scratch_b")
    ),
    _margin(ABOVE, "appendix on aggressive ratios: structured, the lead grows", PREDEFINED),
    _margin(ABOVE, "appendix on aggressive ratios: structured, the lead grows", AUTOMATIC),
    _margin(BELOW, "section 4.3: of single weights, fine-tuning is ahead at high ratios", UNSTRUCTURED),
)  # fmt: skip

_FINE_TUNING = (
    Statement(
        _fine_tuned(extreme="smallest"), _fine_tuned(extreme="largest"), NO_WORSE,
        f"{_LIU}, appendix on longer fine-tuning: it gains little", field=_FT_EPOCHS, group="longer fine-tuning",
        runs=("cifar10_longer_fine_tuning", *_HERE),
    ),
    Statement(
        Side("scratch_e"), _fine_tuned(extreme="largest"), ABOVE,
        f"{_LIU}, appendix on longer fine-tuning: it does not reach training from scratch", field=_FT_EPOCHS,
        group="longer fine-tuning", runs=("cifar10_longer_fine_tuning", *_HERE),
    ),
    *(
        Statement(
            Side(scratch, extreme="largest"), _fine_tuned(extreme="largest"), NO_WORSE,
            f"{_LIU}, appendix on longer schedules: scratch stays level", field=EPOCHS,
            runs=("cifar10_longer_schedule", *_HERE),
        )
        for scratch in ("scratch_e", "scratch_b")
    ),
    Statement(
        _fine_tuned(extreme="largest"), _fine_tuned(extreme="smallest"), ABOVE,
        f"Renda et al., ICLR 2020, and {_LE}: fine-tune at the rate of the unpruned network", field=_FT, free=_SCHEDULE,
        group="rate of fine-tuning", runs=_HERE,
    ),
    Statement(
        _fine_tuned("random", extreme="largest"), _fine_tuned("l1_filter", extreme="smallest"), NO_WORSE,
        f"{_LE}: random channels, fine-tuned at the large rate, against chosen ones at the small rate", field=_FT,
        free=_SCHEDULE, group="rate of fine-tuning", runs=_HERE,
    ),
    *(
        _by_regime(_retrained(regime), ABOVE, _retrained("fine_tune"), f"{source}: retrain at the dense rates")
        for regime, source in (
            ("lr_rewind", f"{_RENDA}, and {_LE}"), ("weight_rewind", _RENDA), ("cyclic", _LE), ("one_cycle", _LE),
        )
    ),
    _by_regime(
        _retrained("lr_rewind"), NO_WORSE, _retrained("weight_rewind"),
        f"{_RENDA}: rewinding the rate alone matches or outperforms rewinding the weights too",
    ),
    *(
        _by_regime(
            _retrained(regime, "random"), NO_WORSE, _retrained("fine_tune", "l1_filter"),
            f"{_LE}: random channels, retrained at the large rate, against chosen ones at the small rate",
        )
        for regime in ("lr_rewind", "cyclic")
    ),
    *(
        _by_regime(
            _retrained(regime), NO_WORSE, Side("scratch_e"),
            f"{_LE}, and Wang et al. 2023 (preprint). There at equal epochs of retraining, here retraining is the"
            " shorter",
            _VALUE,
        )
        for regime in ("lr_rewind", "cyclic")
    ),
    Statement(
        _fine_tuned("random", only=_MODERATE), _fine_tuned("l1_filter", only=_MODERATE), NO_WORSE,
        "Mittal et al. 2018: random channels are as good as chosen ones, up to half", group="random channels",
        runs=_HERE,
    ),
    Statement(
        _fine_tuned("l1_filter", only=_HIGH), _fine_tuned("random", only=_HIGH), ABOVE,
        "PruningBench 2024 (withdrawn submission): random channels fall behind at 4x", group="random channels",
        runs=_HERE,
    ),
)  # fmt: skip

_FOUND = "what the method finds"
_DESIGNS = (
    Statement(
        _scratch("slimming", only=_VGG), _scratch("uniform", only=_VGG), ABOVE,
        f"{_LIU}, section 5: slimming is more parameter-efficient for VGG", equal_cost="params", group=_FOUND,
        runs=("cifar10_guided", "claims_cifar10"),
    ),
    Statement(
        _scratch("uniform", only=_RESIDUAL), _scratch("slimming", only=_RESIDUAL), NO_WORSE,
        f"{_LIU}, section 5: not for ResNets and DenseNets", equal_cost="params", group=_FOUND, runs=_HERE,
    ),
    Statement(
        _scratch("slimming", only=_VGG, measure="spread of the layers' kept shares"),
        _scratch("slimming", only=_RESIDUAL, measure="spread of the layers' kept shares"), ABOVE,
        f"{_LIU}, section 5: slimming leaves ResNets and DenseNets nearly uniform, and VGG not",
        free=("classifier", "prune.options"), group=_FOUND, runs=("claims_cifar10",),
    ),
    Statement(
        _scratch("magnitude"), _scratch("uniform_weights"), ABOVE,
        f"{_LIU}, section 5: magnitude is more parameter-efficient than uniform sparsification", group=_FOUND,
        runs=("cifar10_guided_weights", *_HERE),
    ),
    Statement(
        _scratch("uniform_weights", only=_RESIDUAL), _scratch("magnitude", only=_RESIDUAL), NO_WORSE,
        f"{_LIU}, section 5: but not where its pattern is nearly uniform", group=_FOUND,
        runs=("cifar10_guided_weights", *_HERE),
    ),
    _designs(_scratch("guided"), _scratch("uniform"), "macs", "designs guided by pruning", *_STRUCTURED),
    _designs(
        _scratch("guided"), _scratch("uniform_weights"), "params", "designs guided by pruning", UNSTRUCTURED
    ),
    _designs(
        _scratch("guided", only=_OWN), _scratch("slimming"), "params", "guided designs are level with the method",
        *_STRUCTURED,
    ),
    _designs(
        _scratch("guided", only=_OWN), _scratch("magnitude"), "params", "guided designs are level with the method",
        UNSTRUCTURED,
    ),
    _designs(
        _scratch("guided", only=_OTHER), _scratch("slimming"), "params", "so are designs guided by another network",
        *_STRUCTURED,
    ),
    _designs(
        _scratch("guided", only=_OTHER), _scratch("guided", only=_OWN), "params",
        "so are designs guided by another network", *_STRUCTURED,
    ),
)  # fmt: skip

_WEIGHTS_AND_TICKETS = (
    *(
        Statement(
            Side(more, _NEAR_ZERO, methods), Side("fine_tune", _NEAR_ZERO, ("magnitude",)),
            ABOVE, f"{_LIU}, appendix on weight distributions: fine-tuned networks keep the gap at zero",
            runs=_HERE,
        )
        for more, methods in (("unpruned", ()), ("scratch_e", ("magnitude",)))
    ),
    _by_rate(_TICKET_SMALL, ABOVE, _RANDOM_SMALL, "the ticket helps at the small rate", UNSTRUCTURED),
    _by_rate(_RANDOM_SMALL, NO_WORSE, _TICKET_SMALL, "for channels not at the small rate either", PREDEFINED),
    _by_rate(_RANDOM_LARGE, NO_WORSE, _TICKET_LARGE, "the ticket does not help at the large rate"),
    _by_rate(_RANDOM_LARGE, ABOVE, _TICKET_SMALL, "the large rate is better anyway"),
    _by_rate(
        Side("unpruned", _MOVED, extreme="largest"), ABOVE, Side("unpruned", _MOVED, extreme="smallest"),
        "the large rate moves the weights further from their start",
    ),
    Statement(
        Side("fine_tune", "recalibrated_top1"), Side("fine_tune", "pruned_top1"), ABOVE,
        "our control: BatchNorm's statistics no longer fit after pruning", runs=_HERE,
    ),
    Statement(
        Side("scratch_e", "MACs saved"), Side("scratch_e", "latency saved"), ABOVE,
        "Liu et al., ICML 2021 (Group Fisher): latency falls less than MACs", _STRUCTURED, runs=_HERE,
    ),
)  # fmt: skip

CLASSIFICATION_STATEMENTS = _SCRATCH + _FINE_TUNING + _DESIGNS + _WEIGHTS_AND_TICKETS
