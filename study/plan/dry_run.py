"""The plan as a table: every stage with its length, size and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.config.schema import StudyConfig
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pipelines import Route, all_stages, labels
from study.plan.tune import Decision, StudyPlan, plan_study
from study.stages.contents import Contents, absences
from study.stages.given_weights import NOT_COUNTED

# what one GPU keeps up in mixed precision, for the dry run's estimate: large networks reach several times as much, a
# CIFAR network at batch 64 less
GPU_FLOPS = 10e12


def print_plan(
    config: StudyConfig, routes: Sequence[Route], runs: Path, console: Console, source: Path = Path()
) -> None:
    """The dry run: every stage with what it costs, who shares it, and what is done; what chooses rates first."""
    plan = plan_study(config, routes, source=str(source), contents=Contents(runs))
    estimator = Estimator(runs, config.machine)
    foreseen = foresee(all_stages(plan.recipe), estimator, source)
    decisions = plan.decide(runs)
    costs = _Costs()
    if plan.tried:
        costs += _print_stages(f"{config.name}: choosing rates", plan.tried, estimator, console)
        console.print(f"choosing rates: {costs.total:.4g} training MACs, of which {costs.left:.4g} are left")
    costs += _print_stages(config.name, plan.routes(decisions), estimator, console)
    at_best = sum((_at_best(plan, decision, estimator) for decision in decisions if not decision.chosen), _Costs())
    if at_best.stages:
        console.print(
            f"routes at their best: at most {at_best.stages} stages more, which follow when rates are chosen, counted"
            f" at the recipe's cost: {at_best.total:.4g} training MACs"
        )
    costs += at_best
    console.print(
        f"training MACs: {costs.total:.4g}, of which {costs.left:.4g} are left; {costs.each:.4g} if nothing were shared"
    )
    if costs.taught:
        console.print(f"forward passes of teachers: {costs.taught:.4g} of these")
    if any(stage.kind == "take_weights" for stage in all_stages(routes)):
        console.print(f"pretraining of the weights that are taken: {NOT_COUNTED}")
    hours, speed = 2 * costs.left / (GPU_FLOPS * 3600), f"{GPU_FLOPS / 1e12:g} TFLOP/s sustained"
    for why in dict.fromkeys(absences(all_stages(routes))):
        console.print(f"planned without its data, so the runs have no final names yet: {why}", highlight=False)
    console.print(f"about {hours:.3g} GPU hours are left at {speed}, which is assumed, not measured")
    console.print(str(foreseen))


@dataclass(frozen=True)
class _Costs:
    """Training MACs of so many stages: all, those not done, all if routes shared none, and of all the teachers'."""

    stages: int = 0
    total: int = 0
    left: int = 0
    each: int = 0
    taught: int = 0

    def __add__(self, other: "_Costs") -> "_Costs":
        return _Costs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def _print_stages(title: str, routes: Sequence[Route], estimator: Estimator, console: Console) -> _Costs:
    stages, names = all_stages(routes), labels(routes)
    users = Counter(s.id for route in routes for s in route.stages)
    table = Table(title=f"{title}: {len(routes)} routes, {len(stages)} stages")
    for heading, justify in (("stage", "left"), ("length", "right"), ("params", "right"), ("MACs", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("training MACs", "routes", "state"):
        table.add_column(heading, justify="right")
    costs = _Costs()
    for stage in stages:
        cost = estimator.estimate(stage)
        done = stage.run(estimator.runs).done
        macs = cost.train_macs
        costs += _Costs(1, macs, 0 if done else macs, macs * users[stage.id], cost.teacher_macs)
        limit = "<= " if cost.at_most else ""
        cells = [f"{limit if value else ''}{value:,}" for value in (cost.params, cost.macs, macs)]
        if stage.kind == "take_weights":
            cells[-1] = "unknown"
        state = f"done: {stage.id}" if done else stage.id
        table.add_row(names[stage.id], cost.length, *cells, str(users[stage.id]), state)
    console.print(table)
    return costs


def _at_best(plan: StudyPlan, decision: Decision, estimator: Estimator) -> _Costs:
    """What a route may train anew at its best: the stages of the recipe that some candidate does not share."""
    own, *others = (all_stages(plan.at(decision.tuning, c)) for c in decision.tuning.candidates)
    kept = set.intersection(*({stage.id for stage in stages} for stages in others))
    found = [estimator.estimate(stage) for stage in own if stage.id not in kept]
    macs = sum(cost.train_macs for cost in found)
    return _Costs(len(found), macs, macs, macs, sum(cost.teacher_macs for cost in found))
