"""How long a training stage is: the epochs of a classifier, the iterations of a detector."""

from classify.regimes import budget_epochs, get_regime
from detect.budgets import BUDGETS, Costs, Length
from study.stages.stage import Stage


def detector_iterations(stage: Stage, costs: Costs) -> int:
    """Iterations of a `train_detector` stage by the rule of its budget."""
    train, budget = stage.settings["train"], stage.settings.get("budget")
    rule = None if budget is None else BUDGETS[budget["rule"]]
    if budget is None or rule is None:
        return int(train["iterations"])
    return rule(Length(train["iterations"], train["batch_size"], budget["iterations"]), costs)


def classifier_epochs(stage: Stage, *, dense_macs: int, pruned_macs: int) -> int:
    """The epochs of a training stage: its own, or those that its budget comes to."""
    return budget_epochs(
        get_regime(stage.settings["regime"]),
        stage.settings["train"]["epochs"],
        dense_macs=dense_macs,
        pruned_macs=pruned_macs,
        cap=stage.settings["cap"],
        fine_tune_epochs=stage.settings.get("fine_tune_epochs", 0),
    )
