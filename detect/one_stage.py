"""Detectron2's RetinaNet (arXiv 1708.02002), at other widths than its own and with its state in its state_dict."""

import torch
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Instances
from torch import nn

from detect.data.records import Record
from training.distributed import mean_over_processes

_START = 100.0  # Detectron2's first value of the normaliser
_WIDTH = 256  # of the head whose weights may be drawn with a deviation of 0.01 (section 4.1)


@META_ARCH_REGISTRY.register()
class OneStageDetector(RetinaNet):
    """RetinaNet. The moving mean of positive anchors, by which its losses are divided, is a buffer.

    Detectron2 keeps it as a plain number, which a checkpoint does not hold, and one in each process; here processes
    that train together share it, and a resumed training ends with the same bits.

    Detectron2 draws the head's weights with a deviation of 0.01 at any width. Of fewer channels than 256 little is then
    left after five convolutions, and a head of 32 or 48 does not begin to learn; so deviations are here those by which
    as much is left as of 256.
    """

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.register_buffer("loss_normalizer", torch.tensor(_START, dtype=torch.float64))
        for layer in self.head.modules():
            if isinstance(layer, nn.Conv2d):
                with torch.no_grad():
                    layer.weight *= (_WIDTH / layer.in_channels) ** 0.5

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
        # filled, not copied from the CPU, which would wait for a GPU
        mean = mean_over_processes(torch.full((), float(value), device=self.device)).double()
        old = getattr(self, name)
        old.copy_(old * momentum + mean * (1 - momentum))
        return float(old)
