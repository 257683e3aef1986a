"""How long a training stage is: the epochs of a classifier, the iterations of a detector."""

from classify.regimes import budget_epochs, get_regime
from detect.budgets import BUDGETS, Costs, Length
from study.stages.settings import TrainClassifier, TrainDetector
from study.stages.stage import Stage


def detector_iterations(stage: Stage, costs: Costs) -> int:
    """Iterations of a `train_detector` stage by the rule of its budget."""
    settings = stage.read(TrainDetector)
    train, budget = settings.train, settings.budget
    rule = None if budget is None else BUDGETS[budget.rule]
    if budget is None or rule is None:
        return train.iterations
    return rule(Length(train.iterations, train.batch_size, budget.iterations), costs)


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
