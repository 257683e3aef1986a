"""The stage that times a study's networks in turn, one of each shape. Nothing else should run beside it."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

import torch
from torch import Tensor, nn

from pruning.cost import count_activations, measure_latency
from study.stages.network import Network, load_model
from study.stages.settings import Latency, TimedNetwork
from study.stages.stage import Context, load_stage
from training.device import deterministic_algorithms

_BYTES = 4  # of a float32, which networks are evaluated in


def run_latency(context: Context) -> dict[str, object]:
    """Milliseconds and bytes of activations of each network for one image, and the day; no artifacts."""
    settings = context.stage.read(Latency)
    # all at a time: they are timed in turn, so that what else the machine does falls on each of them
    loaded = {name: _load(network, context) for name, network in settings.networks.items()}
    # as they are used, whatever the stages train with
    with deterministic_algorithms(wanted=False, device=context.device):
        times = measure_latency(loaded, rounds=settings.rounds, sets=settings.sets)
    return {
        "metrics": {},
        "networks": {
            name: {
                "activation_bytes": _BYTES * _activations(*loaded[name]),
                "times": [asdict(each) for each in times[name]],
            }
            for name in loaded
        },
        "date": datetime.now(UTC).date().isoformat(),
        "train_macs": 0,
    }


class _OneImage(nn.Module):
    """A detector as a function of one image (3, H, W)."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> object:
        return self.detector([{"image": image}])


def _load(timed: TimedNetwork, context: Context) -> tuple[nn.Module, Tensor]:
    """A network with its weights, and the image that it is timed on: of a detector, noise."""
    stage = load_stage(context.runs / timed.paths["run"])
    if stage.kind != "train_detector":
        run = stage.run(context.runs)
        return load_model(run).to(context.device), Network.load(run).example().to(context.device)
    from study.stages.detector import load_detector  # Detectron2, which classification works without

    shape = cast(dict[str, Any], timed.shape)
    _, detector, _ = load_detector(stage, context.runs, shape["num_classes"], device=context.device)
    # on a blank image nothing might be proposed, and the work on proposals would not be in the time
    image = torch.randint(256, (3, *shape["image_size"]), generator=torch.Generator().manual_seed(0))
    return _OneImage(detector), image.float().to(context.device)


def _activations(network: nn.Module, example: Tensor) -> int:
    if not isinstance(network, _OneImage):
        return count_activations(network, example)
    from detect.cost import detector_activations  # Detectron2, which classification works without

    height, width = example.shape[1:]
    return detector_activations(network.detector, image_size=(height, width))  # type: ignore[arg-type]
