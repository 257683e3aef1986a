"""What detectors cost, before any is trained: built around networks without weights, and counted once each."""

from pathlib import Path
from typing import TYPE_CHECKING

from classify.models.blank import rebuild_hollow
from detect.data.open import open_detection
from detect.settings import Distillation
from study.stages.network import Network
from study.stages.stage import Stage
from training.files import canonical

if TYPE_CHECKING:  # they import Detectron2, and classification works without
    from detect.build import Config, Detector
    from detect.cost import PartMacs
    from detect.data import DetectionDataset


class DetectorCosts:
    """Of the detector that a training stage describes, around a network; `runs`: beside it is the generated data."""

    def __init__(self, runs: Path):
        self._data = runs / "data"
        self._known: dict[tuple[str, ...], tuple[int, PartMacs, Config]] = {}

    def build(self, stage: Stage, network: Network) -> "tuple[Detector, Config, DetectionDataset]":
        """The detector without trained weights, its Detectron2 config and its training data."""
        from detect.data import class_names
        from study.stages.detector import build

        dataset = open_detection(stage.settings["data"], "train", self._data)
        classifier = rebuild_hollow(network.backbone().plan, network.num_classes)
        classes = len(class_names(dataset))
        return *build(stage, network, classifier, classes, device="cpu", blank=True), dataset

    def of(self, stage: Stage, network: Network) -> tuple[int, int, int]:
        """Params, MACs of evaluating one image, training MACs of one image."""
        params, macs, cfg = self._count(stage, network)
        return params, macs.evaluation(cfg).total, macs.training(cfg)

    def teacher(self, stage: Stage, network: Network, distill: Distillation | None) -> int:
        """MACs of one image that the detector around the unpruned network looks at as a teacher; 0 for none."""
        if distill is None:
            return 0
        _, macs, cfg = self._count(stage, network.dense())
        return macs.teacher(cfg, distill)

    def _count(self, stage: Stage, network: Network) -> "tuple[int, PartMacs, Config]":
        from detect.cost import detector_params, part_macs
        from detect.data.loader import mean_image_size

        # a cost depends on how many weights stay in each tensor, not on which
        kept = {name: int(mask.sum()) for name, mask in (network.masks or {}).items()}
        # the data says how many classes there are and how large an image is
        about = canonical([stage.settings["model"], stage.settings["data"]])
        key = (about, network.plan.to_json(), str(kept))
        if key not in self._known:
            detector, cfg, dataset = self.build(stage, network)
            macs = part_macs(detector, image_size=mean_image_size(dataset, cfg), masks=network.masks)
            self._known[key] = detector_params(detector, network.masks)[1], macs, cfg
        return self._known[key]
