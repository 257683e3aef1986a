"""Detectron2's RetinaNet (arXiv 1708.02002), all of whose state is in its state_dict: a training resumes exactly."""

import torch
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Instances

from detect.data.records import Record
from training.distributed import mean_over_processes

_START = 100.0  # Detectron2's first value of the normaliser


@META_ARCH_REGISTRY.register()
class OneStageDetector(RetinaNet):
    """RetinaNet. The moving mean of positive anchors, by which its losses are divided, is a buffer.

    Detectron2 keeps it as a plain number, which a checkpoint does not hold, and one in each process; here processes
    that train together share it.
    """

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.register_buffer("loss_normalizer", torch.tensor(_START, dtype=torch.float64))

    def inference(
        self, batched_inputs: list[Record], do_postprocess: bool = True
    ) -> list[Instances] | list[dict[str, Instances]]:
        """As GeneralizedRCNN's: without `do_postprocess` the Instances of each image, in its own pixels."""
        if do_postprocess:
            return self(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        levels = self.backbone(images.tensor)
        features = [levels[name] for name in self.head_in_features]
        return self.forward_inference(images, features, self.head(features))

    def _ema_update(self, name: str, value: float, initial_value: float, momentum: float = 0.9) -> float:
        mean = float(mean_over_processes(torch.tensor(float(value), device=self.device)))
        old = getattr(self, name)
        old.copy_(old * momentum + mean * (1 - momentum))
        return float(old)
