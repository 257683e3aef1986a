"""What detectors cost, before any is trained: built around networks without weights, and traced once each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from classify.models.blank import rebuild_blank
from detect.data.open import open_detection
from detect.settings import Distillation
from study.stages.network import Network
from study.stages.stage import Stage
from training.files import canonical

_Numbers = tuple[int, ...]


class DetectorCosts:
    """Of the detector that a training stage describes, around a network; `runs`: beside it is the generated data."""

    def __init__(self, runs: Path):
        self._data = runs / "data"
        self._known: dict[tuple[str, ...], _Numbers] = {}

    def build(self, stage: Stage, network: Network) -> tuple[Any, Any, Any]:
        """The detector without trained weights, its Detectron2 config and its training data."""
        from detect.data import class_names  # Detectron2, which classification works without
        from study.stages.detector import build

        dataset = open_detection(stage.settings["data"], "train", self._data)
        classifier = rebuild_blank(network.backbone().plan, network.num_classes)
        return *build(stage, network, classifier, len(class_names(dataset)), device="cpu"), dataset

    def of(self, stage: Stage, network: Network) -> _Numbers:
        """Params, MACs of evaluating one image, training MACs of one image."""
        from detect.cost import detector_params, evaluation_macs, training_macs

        def count(detector: Any, cfg: Any, size: tuple[int, int]) -> _Numbers:
            masks = network.masks
            return (
                detector_params(detector, masks)[1],
                evaluation_macs(detector, cfg, image_size=size, masks=masks).total,
                training_macs(detector, cfg, image_size=size, masks=masks),
            )

        return self._once(stage, network, "", count)

    def teacher(self, stage: Stage, network: Network, distill: Distillation | None) -> int:
        """MACs of one image that the detector around the unpruned network looks at as a teacher; 0 for none."""
        if distill is None:
            return 0
        from detect.cost import teacher_macs

        def count(detector: Any, cfg: Any, size: tuple[int, int]) -> _Numbers:
            return (teacher_macs(detector, cfg, distill, image_size=size),)

        return self._once(stage, network.dense(), str(distill), count)[0]

    def _once(
        self, stage: Stage, network: Network, what: str, count: Callable[[Any, Any, tuple[int, int]], _Numbers]
    ) -> _Numbers:
        from detect.data.loader import mean_image_size

        # a cost depends on how many weights stay in each tensor, not on which
        kept = {name: int(mask.sum()) for name, mask in (network.masks or {}).items()}
        # the data says how many classes there are and how large an image is
        about = canonical([stage.settings["model"], stage.settings["data"]])
        key = (about, network.plan.to_json(), str(kept), what)
        if key not in self._known:
            detector, cfg, dataset = self.build(stage, network)
            self._known[key] = count(detector, cfg, mean_image_size(dataset, cfg))
        return self._known[key]
