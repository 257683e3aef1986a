"""What a study times when its routes are done: one network of each shape, and whose times each route has."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pruning.plan import PruningPlan
from study.config.schema import StudyConfig
from study.plan.pipelines import Route
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.files import content_hash, read_json, write_json


@dataclass(frozen=True)
class Timing:
    """The stage that times the networks; `rows`: evaluation's id -> name of its network, and which set of its times.

    Seeds whose networks are of one shape have a set each, so that their times scatter as those of any two networks do.
    """

    stage: Stage
    rows: Mapping[str, tuple[str, int]]

    @property
    def label(self) -> str:
        """What a person calls the stage."""
        count = len(self.stage.settings["networks"])
        return f"latency ({count} network{'' if count == 1 else 's'})"

    def times(self, shapes: Iterable[str], amount: Mapping[str, int]) -> bool:
        """Does the stage time all these shapes, and as often?"""
        settings = self.stage.settings
        return settings["networks"].keys() >= set(shapes) and amount.items() <= settings.items()

    def write(self, study: RunDir) -> None:
        """Keep it in the study's directory, for the report and for who watches."""
        write_json(study.timing, {"settings": self.stage.settings, "rows": self.rows})


def read_timing(study: RunDir) -> Timing | None:
    """What `write` kept; None where a study has timed nothing, or an earlier version did."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = read_json(study.timing)
        return Timing(_stage(kept["settings"]), {id_: (name, number) for id_, (name, number) in kept["rows"].items()})
    return None


def plan_timing(config: StudyConfig, routes: Sequence[Route], study: RunDir) -> Timing | None:
    """What there is to time of the routes that are done and still have their files; None where there is nothing.

    Times that were taken before are kept where they are of all these shapes.
    """
    runs, seeds = study.path.parent, sorted({route.seed for route in routes})
    shapes: dict[str, dict[str, object]] = {}
    holders: dict[str, str] = {}
    rows: dict[str, tuple[str, int]] = {}
    for route in routes:
        # a detector's evaluation holds no network, what it evaluates does
        holder = route.evaluation.parents[0] if route.evaluation.kind == "evaluate" else route.evaluation
        if not route.evaluation.run(runs).done:
            continue
        with suppress(ValueError):  # a file of a finished run was changed or is gone: whoever needs it says so
            shape = _shape(route.evaluation, holder, runs)
            name = content_hash(shape)
            shapes[name], rows[route.evaluation.id] = shape, (name, seeds.index(route.seed))
            if holder.run(runs).weights.is_file():
                # the first will do: which weights a network has, and which channels were kept, does not change its time
                holders.setdefault(name, holder.id)
    amount = {"rounds": config.evaluate.latency_rounds, "sets": len(seeds)}
    before = read_timing(study)
    # all or nothing: networks are timed in turn by one stage, so that their times can be compared
    if before and before.stage.run(runs).done and before.times(shapes, amount):
        return Timing(before.stage, rows)
    # the run is a place, which hashes leave out: an equal network of another run does not ask for other times
    networks = {name: {"shape": shapes[name], "paths": {"run": run}} for name, run in holders.items()}
    # a shape whose networks have all lost their weights cannot be timed
    kept = {evaluation: row for evaluation, row in rows.items() if row[0] in networks}
    return Timing(_stage({"networks": networks, **amount}), kept) if networks else None


def _stage(settings: Mapping[str, object]) -> Stage:
    return Stage("latency", settings, (), 0)


def _shape(evaluation: Stage, holder: Stage, runs: Path) -> dict[str, object]:
    """All that the time of a network follows from: how many channels it has where, and how large its image is."""
    run, result = holder.run(runs), evaluation.run(runs).read_result()
    plan, network = PruningPlan.load(run.whole(run.plan)), run.read_result()["network"]
    # a group that keeps all its channels is left out, so that a plan that names it is as one that does not
    shape: dict[str, object] = {
        "arch": [plan.arch, dict(plan.options), len(network["mean"])],
        "kept": {name: kept for name, kept in plan.kept_counts().items() if kept < plan.widths[name]},
        "select": {name: len(indices) for name, indices in plan.select.items()},
        "scatter": {name: len(indices) for name, indices in plan.scatter.items()},
        "drop": sorted(plan.drop),
    }
    if evaluation is holder:
        return {**shape, "num_classes": network["num_classes"], "image_size": network["image_size"]}
    size, classes = result["evaluation"]["image_size"], len(result["per_class"])
    return {**shape, "num_classes": classes, "image_size": size, "detector": holder.identity().get("model", {})}
