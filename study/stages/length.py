"""How long a training stage is: the epochs of a classifier, the iterations of a detector."""

from classify.regimes import budget_epochs, get_regime
from detect.budgets import BUDGETS, Costs, Length, with_spare
from pruning.cost import TRAINING_FACTOR
from study.stages.settings import TrainClassifier, TrainDetector
from study.stages.stage import Stage


def detector_iterations(stage: Stage, costs: Costs) -> int:
    """Iterations of a `train_detector` stage by the rule of its budget."""
    settings = stage.read(TrainDetector)
    train, budget = settings.train, settings.budget
    rule = None if budget is None else BUDGETS[budget.rule]
    # a training that is split by a pruning inside it is a part of what the budget is about
    length = Length(train.iterations, train.batch_size, train.iterations if budget is None else budget.iterations)
    if settings.pretraining is not None:
        # what the classifier before was cheaper by than it might be goes into the detector as well
        return with_spare(rule, length, costs)
    return train.iterations if rule is None else rule(length, costs)


def pretraining_macs(stage: Stage, *, dense_macs: int, pruned_macs: int, images: int) -> int:
    """Training MACs of the classifier that a detector's budget allows for; `images`: of the classifier's data.

    `dense_macs`, `pruned_macs`: of one image in one forward pass.
    """
    pretraining = stage.read(TrainDetector).pretraining
    assert pretraining is not None  # it asks for this
    fine_tuning = TRAINING_FACTOR * pruned_macs + (dense_macs if pretraining.distilled else 0)
    return images * (TRAINING_FACTOR * pretraining.epochs * dense_macs + pretraining.fine_tune_epochs * fine_tuning)


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
