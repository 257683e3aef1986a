"""How the results of detectors and of classifiers are read: quality, size, what was measured on what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pruning.plan import PruningPlan
from study.config.schema import StudyConfig
from study.plan.pipelines import Route
from study.report.rows import Basis, Measured, StageResult
from study.stages.network import Network
from study.stages.stage import Stage
from study.stages.store import WrittenResult

Results = Mapping[str, StageResult]  # by stage id
_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Reader:
    """How the results of a task are read.

    `measures(route, results)`: quality and size, for one row. `evaluation(config, result)`: what was measured on what;
    `result`: that of a route's evaluation, None: nothing is finished.
    """

    measures: Callable[[Route, Results], Measured]
    evaluation: Callable[[StudyConfig, WrittenResult | None], Basis]


def _detector_measures(route: Route, results: Results) -> Measured:
    result = results[route.evaluation.id].result
    costs = {**result["costs"], **_removed(route.evaluation, results)}
    metrics = result["metrics"]
    scores = {name: metrics[name] for name in (*_AP, "mask_AP") if name in metrics}  # few detectors predict masks
    return Measured(scores, costs, result["per_class"])


def _detector_evaluation(config: StudyConfig, first: WrittenResult | None) -> Basis:
    assert config.detector is not None
    name = config.detector.dataset.title
    if first is None:
        return Basis(name)
    on = first["evaluation"]
    height, width = on["image_size"]
    return Basis(
        name,
        on.get("split"),
        on.get("metric"),
        on.get("images"),
        on.get("boxes"),
        on.get("detections"),
        f"{width} x {height}",
    )


def _classifier_measures(route: Route, results: Results) -> Measured:
    result = results[route.evaluation.id].result
    metrics, network = result["metrics"], result["network"]
    dense = _dense(route, result).costs()
    costs = {
        "params": network["params"],
        "macs": network["macs"],
        "dense_params": dense["params"],
        "dense_macs": dense["macs"],
        "epochs": result.get("epochs", 0),
        **_removed(route.evaluation, results),
    }
    scores = {"top1": metrics["test_top1"], "top5": metrics["test_top5"], "val_top1": metrics["val_top1"]}
    return Measured(scores, costs, after_pruning=_after_pruning(route.evaluation, results))


def _removed(stage: Stage, results: Results) -> dict[str, float]:
    """What the last pruning of a route removed, in percent of what was asked."""
    pruning = [s for s in stage.with_ancestors() if s.kind in ("prune", "prune_detector")]
    found = results[pruning[-1].id].part("achieved") if pruning else {}
    if not found.get("asked"):
        return {}
    return {"removed_of_asked_percent": 100 * found["removed"] / found["asked"]}


def _after_pruning(stage: Stage, results: Results) -> dict[str, float]:
    """Test accuracy right after the last pruning of trained weights, BatchNorm's statistics as they were and anew."""
    while stage.kind != "prune" and stage.parents:
        stage = stage.parents[0]
    metrics = results[stage.id].part("metrics") if stage.kind == "prune" else {}
    if "recalibrated_top1" not in metrics:
        return {}
    return {"pruned_top1": metrics["test_top1"], "recalibrated_top1": metrics["recalibrated_top1"]}


def _classifier_evaluation(config: StudyConfig, first: WrittenResult | None) -> Basis:
    assert config.classifier.dataset is not None  # classifiers are compared on one
    found = Basis(config.classifier.dataset.name, "test", "top-1 accuracy (%)")
    if first is None:
        return found
    side, images = first["network"]["image_size"], first["metrics"]["test_images"]
    return replace(found, images=None if images is None else int(images), image_size=f"{side} x {side}")


def _dense(route: Route, result: WrittenResult) -> Network:
    """The unpruned network of a route, from its result: a report needs no plan for it, which may be gone."""
    # the nearest that names an architecture, as a guide before it may be of another
    first = next(s.settings for s in reversed(route.evaluation.with_ancestors()) if "arch" in s.settings)
    found = result["network"]
    plan = PruningPlan(first["arch"], first["arch_options"])
    return Network(plan, found["num_classes"], found["image_size"], tuple(found["mean"]), tuple(found["std"]))


READERS: dict[str, Reader] = {
    "detection": Reader(_detector_measures, _detector_evaluation),
    "classification": Reader(_classifier_measures, _classifier_evaluation),
}
