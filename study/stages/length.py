"""How long a training is: the epochs of a classifier, the iterations of a detector.

Detectors: `same_iterations`, every route has the iterations of the config, split where pruning happens in between.
`same_compute`: Scratch-B for the detector itself; iterations x dense multiply-adds / pruned multiply-adds of a training
image. `same_total`: the route as a whole, its classification stages included, may cost what the unpruned route
costs; the detector gets what they left.
"""

from collections.abc import Callable

from classify.regimes import budget_epochs, get_regime
from pruning.errors import Refusal
from study.stages.settings import TrainClassifier, TrainDetector
from study.stages.stage import Stage


def detector_iterations(
    stage: Stage,
    *,
    macs: Callable[[], int],
    dense_macs: Callable[[], int],
    spent: Callable[[], int],
    classification: Callable[[int], int],
) -> int:
    """Iterations of a `train_detector` stage by the rule of its budget; the rules ask only for what they need.

    `macs`, `dense_macs`: of training on one image, with the stage's network and with the dense one. `spent`: training
    MACs of all stages before. `classification`: training MACs of the dense classifier in so many epochs.
    """
    settings = stage.read(TrainDetector)
    train, budget = settings.train, settings.budget
    if budget is None:
        return train.iterations
    if budget.rule == "same_compute":
        return stretched(train.iterations, dense_macs=dense_macs(), macs=macs())
    total = budget.iterations * train.batch_size * dense_macs() + classification(budget.classifier_epochs)
    return remaining(total=total, spent=spent(), macs=macs(), batch_size=train.batch_size)


def stretched(iterations: int, *, dense_macs: int, macs: int) -> int:
    """Iterations that cost the pruned detector what `iterations` cost the dense one; MACs are those of one image."""
    return iterations * dense_macs // macs


def remaining(*, total: int, spent: int, macs: int, batch_size: int) -> int:
    """Iterations that are left of `total` training MACs; ValueError if the stages before have used them up."""
    left = (total - spent) // (macs * batch_size)
    if left < 1:
        raise Refusal(
            f"detector.budget same_total: the stages before cost {spent:.3g} of {total:.3g} training MACs, which leaves"
            " no iteration for the detector; lower classifier.train.epochs or raise detector.train.iterations"
        )
    return left


def classifier_epochs(stage: Stage, *, dense_macs: int, pruned_macs: int) -> int:
    """The epochs of a training stage: its own, or those that its budget comes to."""
    settings = stage.read(TrainClassifier)
    return budget_epochs(
        get_regime(settings.regime),
        settings.train.epochs,
        dense_macs=dense_macs,
        pruned_macs=pruned_macs,
        cap=settings.cap,
        fine_tune_epochs=settings.fine_tune_epochs,
    )
