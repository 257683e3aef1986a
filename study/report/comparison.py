"""Results on disk into the comparison: one row a route, all that a report is made from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from study.config.schema import StudyConfig
from study.plan.latency import read_timing
from study.plan.pipelines import RATES, Route, grid_fields
from study.plan.tune import TUNED, Decision
from study.report.provenance import precision_of
from study.report.rates import tuned_from
from study.report.readers import READERS, Reader, Results
from study.report.routes import LATENCY_FROM, LATENCY_ROUNDS, LATENCY_TO, describe_point
from study.report.rows import Comparison, Missing, Numbers, Row, StageResult, Step, Timed
from study.report.topic import CHOOSING
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.files import canonical


def collect(
    config: StudyConfig,
    config_file: str,
    routes: Sequence[Route],
    runs: Path,
    why: Mapping[str, str],
    decisions: Sequence[Decision] = (),
) -> Comparison:
    """What is on disk of these routes, and how their rates were chosen.

    `why`: sentences by stage id for what is not there.
    """
    # results of rates that are still open: they tell why a choice is missing
    left = [route for decision in decisions for c in decision.open for route in c.routes]
    results, damaged = _results([*routes, *left], runs)
    # what the run said of a stage goes before what is found on the disk
    why = {**damaged, **why}
    finished = [r for r in routes if all(s.id in results and s.id not in why for s in r.stages)]
    task = "detection" if config.detector else "classification"
    reader = READERS[task]
    first = results[finished[0].evaluation.id].result if finished else None
    measured, timed, gap = _timed(RunDir(runs / config.name), why)
    # without seeds: the seeds of one route share the networks that guide it, and that is no sharing with others
    users: dict[str, set[tuple[str, str]]] = {}
    for route in routes:
        for stage in route.stages:
            users.setdefault(stage.id, set()).add((route.pipeline, canonical(dict(route.point))))
    written = config.model_dump(mode="json", exclude_unset=True)
    return Comparison(
        study=config.name,
        task=task,
        title=config.title or config.name,
        config_file=config_file,
        config=written,
        config_yaml=yaml.safe_dump(written, sort_keys=False),
        seeds=tuple(config.seeds),
        evaluation=reader.evaluation(config, first),
        grid=grid_fields(config),
        rows=tuple(_row(reader, route, measured, users, results) for route in finished),
        missing=(
            *(
                Missing(r.pipeline, r.seed, dict(r.point), _reason(r, results, why))
                for r in routes
                if r not in finished
            ),
            *(gap for decision in decisions for gap in _undecided(decision, config.seeds, results, why)),
        ),
        gaps=tuple(filter(None, [gap if finished else "", *_untimed(finished, measured), *_mixed(finished, results)])),
        stages={s.id: results[s.id] for route in finished for s in route.stages},
        tuning=tuple(tuned_from(decision, runs) for decision in decisions),
        timed=timed,
    )


def _results(routes: Sequence[Route], runs: Path) -> tuple[dict[str, StageResult], dict[str, str]]:
    """The results that are there, and what is wrong with those that cannot be used, both by stage id."""
    found, damaged = {}, {}
    for stage in {s.id: s for route in routes for s in route.stages}.values():
        try:
            if stage.run(runs).done:
                found[stage.id] = StageResult(stage.kind, _step_of(stage, routes), stage.run(runs).read_result())
        except ValueError as error:
            damaged[stage.id] = str(error)
    return found, damaged


def _row(
    reader: Reader,
    route: Route,
    measured: Mapping[str, Numbers],
    users: Mapping[str, set[tuple[str, str]]],
    results: Results,
) -> Row:
    chain = tuple(
        Step(
            step=_step_of(stage, [route]),
            kind=stage.kind,
            run=stage.id,
            train_macs=results[stage.id].result["train_macs"],
            seconds=results[stage.id].result["seconds"],
            shared=len(users[stage.id]) > 1,
        )
        for stage in route.stages
    )
    read, others = reader.measures(route, results), dict(measured.get(route.evaluation.id, {}))
    latency = others.pop("latency_ms", None)
    return Row(
        pipeline=route.pipeline,
        point=dict(route.point),
        seed=route.seed,
        measured=replace(read, costs={**read.costs, **others, **_choosing(results[step.run] for step in chain)}),
        latency_ms=latency,
        precision=precision_of(results[step.run] for step in chain),
        chain=chain,
    )


def _choosing(stages: Iterable[StageResult]) -> dict[str, float]:
    """Seconds in which the prunings of a chain chose; without a key where none says."""
    found = [stage.result["prune_seconds"] for stage in stages if "prune_seconds" in stage.result]
    return {CHOOSING.key: round(sum(found), 3)} if found else {}


def _undecided(decision: Decision, seeds: Sequence[int], results: Results, why: Mapping[str, str]) -> Iterator[Missing]:
    """The rows that a route at its best would have, where its rates are not chosen."""
    if decision.chosen is not None:
        return
    left = [r for candidate in decision.open for r in candidate.routes if r.evaluation.id not in results]
    reason = _reason(left[0], results, why) if left else "training diverged with all that was tried"
    for seed in seeds:
        point = {**decision.tuning.point, RATES: TUNED}
        yield Missing(decision.tuning.pipeline, seed, point, f"its rates are not chosen: {reason}")


def _reason(route: Route, results: Results, why: Mapping[str, str]) -> str:
    lost = [s for s in route.stages if s.id in why or s.id not in results]
    return next((f"{s.kind} failed: {why[s.id]}" for s in lost if s.id in why), f"{lost[0].id} has not run")


def _timed(study: RunDir, why: Mapping[str, str]) -> tuple[dict[str, Numbers], Timed | None, str]:
    """What networks take for one test-sized image, by evaluation, and where that was measured; or why it was not.

    Milliseconds, and bytes of activations.
    """
    timing, runs = read_timing(study), study.path.parent
    if timing is None or not timing.stage.run(runs).done:
        reason = why.get(timing.stage.id, "") if timing else ""
        return {}, None, f"Latency is not measured: {reason or 'a run of the study does so at its end'}."
    try:
        result = timing.stage.run(runs).read_result()
    except ValueError as error:
        return {}, None, f"Latency is not measured: {error}."
    found: dict[str, Numbers] = {}
    for evaluation, (name, number) in timing.rows.items():
        network = result["networks"][name]
        times = network["times"][number]
        found[evaluation] = {
            "latency_ms": times["median"],
            LATENCY_FROM: times["first_quartile"],
            LATENCY_TO: times["third_quartile"],
            LATENCY_ROUNDS: times["rounds"],
            "activation_bytes": network["activation_bytes"],
        }
    return found, Timed(timing.stage.id, result["date"], result["device"]), ""


def _untimed(routes: Sequence[Route], measured: Mapping[str, Numbers]) -> Iterator[str]:
    """A sentence about finished routes that have no times though others have."""
    names = dict.fromkeys(route.pipeline for route in routes if route.evaluation.id not in measured)
    if measured and names:
        yield f"Latency is not measured of all seeds of {', '.join(names)}: a run of the study does so at its end."


def _mixed(routes: Sequence[Route], results: Results) -> Iterator[str]:
    """A sentence where a grid varies what routes are measured on, of which the head of a report has the first."""
    found: dict[str, Route] = {}
    for route in routes:
        result = results[route.evaluation.id]
        size = result.part("evaluation").get("image_size") or result.part("network").get("image_size")
        images = result.part("data").get("fingerprint")
        if images is not None:  # a pruning that a route ends with does not say it
            found.setdefault(canonical([images, size]), route)
    if len(found) > 1:
        first = next(iter(found.values()))
        place = f" ({describe_point(first.point)})" if first.point else ""
        yield (
            f"Routes are measured on {len(found)} sets or sizes of test images: scores compare only where these are the"
            f" same, and the head of this report has those of {first.pipeline}{place}."
        )


def _step_of(stage: Stage, routes: Sequence[Route]) -> str:
    """The step that made this stage, in the first route that names it; stages behind `shape` have no name of theirs."""
    return next((step for route in routes for step, s in route.steps if s.id == stage.id), stage.kind)
