"""The stages of a study without what stands around them: the checks ahead, and the report."""

from collections.abc import Sequence
from pathlib import Path

from study.config.schema import StudyConfig
from study.plan.pipelines import Route, all_stages, labels
from study.run.scheduler import run_stages


def run_alone(config: StudyConfig, routes: Sequence[Route], runs: Path) -> None:
    """Run every stage of these routes in this process; a failure fails the test."""
    outcome = run_stages(all_stages(routes), labels(routes), runs, config.machine)
    assert outcome.complete, outcome
