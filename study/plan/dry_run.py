"""The plan as a table: every stage with its length, size and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.config.schema import StudyConfig
from study.plan.disk import disk_of
from study.plan.estimate import Estimator
from study.plan.foresee import foresee
from study.plan.pace import FLOP, GPU_FLOPS, pace_of
from study.plan.pipelines import Route, all_stages, labels
from study.plan.tune import Decision, StudyPlan, plan_study
from study.stages.contents import Contents, absences
from study.stages.given_weights import NOT_COUNTED
from study.stages.progress import time_in_words
from study.stages.stage import Stage
from study.stages.store import RunDir

_WIDE = 120  # columns of a console that has room for all digits


def print_plan(
    config: StudyConfig,
    routes: Sequence[Route],
    runs: Path,
    console: Console,
    source: Path = Path(),
    overrides: Sequence[str] = (),
) -> None:
    """The dry run: every stage with what it costs, who shares it, and what is done; what chooses rates first."""
    plan = plan_study(config, routes, source=str(source), contents=Contents(runs))
    estimator = Estimator(runs, config.machine)
    foreseen = foresee(all_stages(plan.recipe), estimator, source, overrides)
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
    console.print("then, with nothing else at work: the latency of one network of each shape")
    if costs.taught:
        console.print(f"forward passes of teachers: {costs.taught:.4g} of these")
    if any(stage.kind == "take_weights" for stage in all_stages(routes)):
        console.print(f"pretraining of the weights that are taken: {NOT_COUNTED}")
    for why in dict.fromkeys(absences(all_stages(routes))):
        console.print(f"planned without its data, so the runs have no final names yet: {why}", highlight=False)
    stages = all_stages([*plan.tried, *plan.routes(decisions)])
    console.print(_time_left(stages, estimator, costs), highlight=False)
    console.print(str(disk_of(stages, estimator)), highlight=False)
    console.print(str(foreseen))


def _time_left(stages: Sequence[Stage], estimator: Estimator, costs: "_Costs") -> str:
    """How long what is left takes on this machine, and of what takes an hour or more also on a GPU."""
    pace = pace_of(stages, estimator)
    left = pace.left(stage for stage in stages if not stage.run(estimator.runs).done)
    hours = FLOP * costs.left / (GPU_FLOPS * 3600)
    gpu = f", or {hours:.3g} GPU hours at {GPU_FLOPS / 1e12:g} TFLOP/s sustained" if left >= 3600 else ""
    assumed = f"{gpu}, which is assumed, not measured" if gpu else ""
    return f"about {time_in_words(left)} are left on this machine, by {pace.source}{assumed}"


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
    table.add_column("stage", overflow="fold")
    for heading in ("length", "params", "MACs", "training MACs", "routes", "state"):
        table.add_column(heading, justify="right", overflow="fold")
    digits = "," if console.width >= _WIDE else ".4g"
    costs = _Costs()
    for stage in stages:
        cost = estimator.estimate(stage)
        done = stage.run(estimator.runs).done
        macs = cost.train_macs
        costs += _Costs(1, macs, 0 if done else macs, macs * users[stage.id], cost.teacher_macs)
        limit = "<= " if cost.at_most else ""
        cells = [f"{limit if value else ''}{value:{digits}}" for value in (cost.params, cost.macs, macs)]
        if stage.kind == "take_weights":
            cells[-1] = "unknown"
        state = f"{_done(stage.run(estimator.runs))}: {stage.id}" if done else stage.id
        table.add_row(names[stage.id], cost.length, *cells, str(users[stage.id]), state)
    console.print(table)
    return costs


def _done(run: RunDir) -> str:
    """What a finished run is, in a word or two: its files may be damaged or gone."""
    try:
        lost = run.lost()
    except ValueError:
        return "damaged"
    return f"done, {', '.join(lost)} lost" if lost else "done"


def _at_best(plan: StudyPlan, decision: Decision, estimator: Estimator) -> _Costs:
    """What a route may train anew at its best: the stages of the recipe that some candidate does not share."""
    # The first candidate is the recipe. A choice that is open has at least one other, so the intersection is of
    # something.
    own, *others = (all_stages(plan.at(decision.tuning, c)) for c in decision.tuning.candidates)
    kept = set.intersection(*({stage.id for stage in stages} for stages in others))
    found = [estimator.estimate(stage) for stage in own if stage.id not in kept]
    macs = sum(cost.train_macs for cost in found)
    return _Costs(len(found), macs, macs, macs, sum(cost.teacher_macs for cost in found))
