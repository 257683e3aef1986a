"""The plan as a table: every stage with its length, size and cost."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.config.schema import StudyConfig
from study.plan.estimate import Budget
from study.plan.foresee import foresee
from study.plan.pipelines import Route, all_stages, labels
from study.stages.contents import absences
from study.stages.given_weights import NOT_COUNTED

# what one GPU keeps up in mixed precision, for the dry run's estimate: large networks reach several times as much, a
# CIFAR network at batch 64 less
GPU_FLOPS = 10e12


def print_plan(
    config: StudyConfig, routes: Sequence[Route], runs: Path, console: Console, source: Path = Path()
) -> None:
    """The dry run: every stage with what it costs, who shares it, and what is done."""
    budget = Budget(runs, config.machine)
    stages = all_stages(routes)
    foreseen = foresee(stages, budget, source)
    names = labels(routes)
    users = Counter(s.id for route in routes for s in route.stages)
    table = Table(title=f"{config.name}: {len(routes)} routes, {len(stages)} stages")
    for heading, justify in (("stage", "left"), ("length", "right"), ("params", "right"), ("MACs", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("training MACs", "routes", "state"):
        table.add_column(heading, justify="right")
    total = left = 0
    for stage in stages:
        cost = budget.estimate(stage)
        done = stage.run(runs).done
        total += cost.train_macs
        left += 0 if done else cost.train_macs
        limit = "<= " if cost.at_most else ""
        cells = [f"{limit if value else ''}{value:,}" for value in (cost.params, cost.macs, cost.train_macs)]
        if stage.kind == "take_weights":
            cells[-1] = "unknown"
        table.add_row(names[stage.id], cost.length, *cells, str(users[stage.id]), "done" if done else stage.id)
    console.print(table)
    each = sum(budget.estimate(s).train_macs for route in routes for s in route.stages)
    console.print(f"training MACs: {total:.4g}, of which {left:.4g} are left; {each:.4g} if nothing were shared")
    if any(stage.kind == "take_weights" for stage in stages):
        console.print(f"pretraining of the weights that are taken: {NOT_COUNTED}")
    hours, speed = 2 * left / (GPU_FLOPS * 3600), f"{GPU_FLOPS / 1e12:g} TFLOP/s sustained"
    for why in dict.fromkeys(absences(stages)):
        console.print(f"planned without its data, so the runs have no final names yet: {why}", highlight=False)
    console.print(f"about {hours:.3g} GPU hours are left at {speed}, which is assumed, not measured")
    console.print(str(foreseen))
