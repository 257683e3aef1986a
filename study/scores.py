"""What a comparison reads of a finished route, by what is compared: detectors or classifiers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.config import StudyConfig
from study.networks import Network, load_model
from study.pipelines import Route
from study.stages import Stage

_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Task:
    """`measures(route, runs)`: quality and size, for one row. `evaluation(config, result)`: what was measured on what;
    `result` None: nothing is finished. `network(route, runs, device)` and `example(route, runs)`: what latency is
    measured of, a function of one image.
    """

    measures: Callable[[Route, Path], dict[str, Any]]
    evaluation: Callable[[StudyConfig, Mapping[str, Any] | None], dict[str, Any]]
    network: Callable[[Route, Path, str], nn.Module]
    example: Callable[[Route, Path], Tensor]


def _detector_measures(route: Route, runs: Path) -> dict[str, Any]:
    result = route.evaluation.run(runs).read_result()
    return {
        **{name: result["metrics"][name] for name in _AP},
        "per_class": result["per_class"],
        **result["costs"],
    }


def _detector_evaluation(config: StudyConfig, first: Mapping[str, Any] | None) -> dict[str, Any]:
    assert config.detector is not None
    name = config.detector.dataset.title
    if first is None:
        return {"dataset": name}
    height, width = first["evaluation"]["image_size"]
    return {"dataset": name, **first["evaluation"], "image_size": f"{width} x {height}"}


def _detector(route: Route, runs: Path, device: str) -> nn.Module:
    from study.detector_stages import load_detector  # Detectron2, which classification works without

    classes = len(route.evaluation.run(runs).read_result()["per_class"])
    _, detector, _ = load_detector(route.evaluation.parents[0], runs, classes, device=device)
    return _OneImage(detector.eval())


def _detector_example(route: Route, runs: Path) -> Tensor:
    size = route.evaluation.run(runs).read_result()["evaluation"]["image_size"]
    return torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(0)).float()


class _OneImage(nn.Module):
    """A detector as a function of one image (3, H, W)."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> Any:
        return self.detector([{"image": image}])


def _classifier_measures(route: Route, runs: Path) -> dict[str, Any]:
    result = route.evaluation.run(runs).read_result()
    metrics, network = result["metrics"], result["network"]
    dense = Network.load(route.evaluation.run(runs)).dense().costs()
    return {
        "top1": metrics["test_top1"],
        "top5": metrics["test_top5"],
        "val_top1": metrics["val_top1"],
        "params": network["params"],
        "macs": network["macs"],
        "dense_params": dense["params"],
        "dense_macs": dense["macs"],
        "epochs": result.get("epochs", 0),
        **_after_pruning(route.evaluation, runs),
    }


def _after_pruning(stage: Stage, runs: Path) -> dict[str, float]:
    """Test accuracy right after the last pruning of trained weights, BatchNorm's statistics as they were and anew."""
    while stage.kind != "prune" and stage.parents:
        stage = stage.parents[0]
    metrics = stage.run(runs).read_result()["metrics"] if stage.kind == "prune" else {}
    if "recalibrated_top1" not in metrics:
        return {}
    return {"pruned_top1": metrics["test_top1"], "recalibrated_top1": metrics["recalibrated_top1"]}


def _classifier_evaluation(config: StudyConfig, first: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {"dataset": config.classifier.dataset.name, "split": "test", "metric": "top-1 accuracy (%)"}
    if first is None:
        return found
    side = first["network"]["image_size"]
    return {**found, "images": first["metrics"]["test_images"], "image_size": f"{side} x {side}"}


def _classifier(route: Route, runs: Path, device: str) -> nn.Module:
    return load_model(route.evaluation.run(runs)).to(device).eval()


def _classifier_example(route: Route, runs: Path) -> Tensor:
    return Network.load(route.evaluation.run(runs)).example()


TASKS: dict[str, Task] = {
    "detection": Task(_detector_measures, _detector_evaluation, _detector, _detector_example),
    "classification": Task(_classifier_measures, _classifier_evaluation, _classifier, _classifier_example),
}
