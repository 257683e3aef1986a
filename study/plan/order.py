"""What a step asks and refuses of the stage before it."""

from collections.abc import Callable
from typing import overload

from classify.models import in_channels
from classify.regimes import BASE, RETRAINING, Regime, get_regime
from detect.settings import TrainSettings
from pruning.errors import Refusal
from pruning.methods import METHODS, get_method
from study.config.pruning import Pruning
from study.plan.sections import Sections
from study.stages.network import starts_dense
from study.stages.settings import TrainClassifier
from study.stages.stage import Stage

# kinds that leave behind the weights of a classifier, as a detector starts from
WITH_WEIGHTS = ("train_classifier", "take_weights", "prune")


@overload
def expect(stage: Stage | None, *kinds: str) -> Stage: ...


@overload
def expect(stage: Stage | None, *kinds: None) -> None: ...


def expect(stage: Stage | None, *kinds: str | None) -> Stage | None:
    """The stage before, if it is of a kind that the step works on."""
    found = stage.kind if stage else None
    if found not in kinds:
        wanted = " or ".join(kind or "nothing" for kind in kinds)
        raise Refusal(f"comes after {wanted}, here it comes after {found or 'nothing'}")
    return stage


def keeps_pruned_weights(stage: Stage) -> bool:
    """Is this a network that was pruned and has not begun anew since?"""
    if stage.kind != "train_classifier":
        return stage.kind in ("prune", "prune_detector")
    return stage.read(TrainClassifier).regime in RETRAINING


def check_acted_on(training: TrainSettings, method: str) -> None:
    """ValueError where the training of a detector, before it is pruned, leaves the method nothing to act on."""
    if not training.iterations:
        raise Refusal(f"detector.prune_at: 0 leaves no training for {method} to act on before it prunes")
    if training.keep == "best" or training.patience is not None:
        raise Refusal(
            f"detector.train: {method} acts on the training to its last step, so keep: best and patience do not go with"
            " it in transfer_then_prune"
        )


def check_start(regime: Regime, pruned: Stage) -> None:
    """ValueError where the weights that a regime starts from are not those behind this pruning."""
    untrained = starts_dense(pruned)
    if regime.init == "initial" and not untrained:
        raise Refusal("comes after a network that was pruned before any training (prune_at_init), this one was trained")
    if regime.init in ("inherited", "original", "rewound") and untrained:
        raise Refusal("comes after a network that was trained and pruned, here its shape alone is known")
    if regime.init in ("original", "rewound"):
        _check_rewound(pruned)


def _check_rewound(pruned: Stage) -> None:
    """ValueError where a network that is to go back to the dense training's weights began from others since."""
    before: Stage | None = pruned
    while before is not None:
        if before.kind == "train_classifier":
            name = before.read(TrainClassifier).regime
            if name != BASE and get_regime(name).init in ("random", "initial"):
                raise Refusal(
                    f"goes back to weights of the dense training, and {name} began from others; leave out {name}, or"
                    " go on with fine_tune"
                )
        before = before.parents[0] if before.parents else None


def check_prepared(effect: Callable[[dict[str, object]], dict[str, object]], changes: dict[str, object]) -> None:
    """ValueError where a pruning with `changes` asks for another training before it than the section `prune` does.

    `effect`: what pruning with some changes asks of that training.
    """
    asked = effect(changes)
    if asked and asked != effect({}):
        raise Refusal(
            f"{asked['method']} acts on the training before it, which goes by the section `prune`; say there, or in a"
            f" variant, what this step changes ({', '.join(changes)})"
        )


def check_untrained(prune: Pruning) -> None:
    """ValueError where a network that was never trained cannot be pruned so."""
    if prune.between_layers is not None:
        raise Refusal("prune.between_layers: what is pruned before any training is not trained; set it to null")
    method = prune.method
    if get_method(method).training_effect is not None:
        able = ", ".join(name for name, entry in METHODS.items() if entry.training_effect is None)
        raise Refusal(
            f"prune.method {method!r} acts on the training before it prunes, and here is none; choose one of {able}"
        )


def check_design(config: Sections) -> None:
    """ValueError where trained weights would be cut by the design of a guide: that is for networks from scratch."""
    prune = config.prune
    follows = config.guide is not None and get_method(prune.method).follows_patterns
    if follows and not prune.options.get("patterns"):
        raise Refusal(
            "a design after the networks of `guide` is for networks from scratch (scratch_e, scratch_b,"
            " scratch_b_fair); to cut trained weights by a design, name its file in prune.options.patterns"
        )


def check_pruned(method: str, before: Stage | None) -> None:
    """ValueError where a method cannot prune what the stage before leaves.

    Weights that are only taken, with no images of what they classify, or those of a training in which a method that
    removes weights while the network trains had no part.
    """
    entry = get_method(method)
    if before is None:
        return
    if before.kind == "take_weights" and (entry.needs != "nothing" or entry.training_effect is not None):
        why = f"looks at {entry.needs}" if entry.needs != "nothing" else "acts on the training before it prunes"
        raise Refusal(
            f"{method} {why}, which needs classifier.dataset; prune inside the detector (transfer_then_prune), or by"
            " another method"
        )
    if entry.removes_in_training and before.settings.get("effect", {}).get("method") != method:
        raise Refusal(
            f"{method} removes weights while the network trains, so it prunes once, right behind"
            " `classify_for_pruning` or `detect_before_pruning`; choose another method for this step"
        )


def check_colour(stage: Stage) -> None:
    """ValueError where a network for grey images would become a detector's backbone."""
    # the nearest that names an architecture: a guided design makes another network than its parents
    settings = next(s.settings for s in reversed(stage.with_ancestors()) if "arch" in s.settings)
    channels = in_channels(settings["arch"], settings["arch_options"])
    if channels != 3:
        raise Refusal(f"detectors read RGB images, classifier.arch {settings['arch']!r} reads {channels} channel(s)")
