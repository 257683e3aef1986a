"""What a step asks and refuses of the stage before it."""

from typing import overload

from classify.models import in_channels
from classify.regimes import get_regime
from pruning.errors import Refusal
from pruning.methods import get_method
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
    return get_regime(stage.read(TrainClassifier).regime).init == "inherited"


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
    settings = next(s.settings for s in reversed(stage.with_ancestors()) if "arch" in s.settings)
    channels = in_channels(settings["arch"], settings["arch_options"])
    if channels != 3:
        raise Refusal(f"detectors read RGB images, classifier.arch {settings['arch']!r} reads {channels} channel(s)")
