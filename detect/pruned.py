"""A pruned network as the backbone of a Detectron2 project of one's own; docs/detectron2.md shows how.

Detectron2 finds it by the name "PrunedBackbone" once `add_pruned_config` was imported.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from torch import Tensor

from classify.kept_network import KeptNetwork, read_kept
from detect.backbone import ClassifierBackbone
from detect.build import top_block
from pruning.errors import Refusal

_FIRST = 2  # res2 has stride 4, and each level twice that of the one before
_OTHERS = "ImageNetPretrained"  # in the names of Detectron2's own backbones' weights
# Detectron2's defaults: BGR in 0..255, less the mean of Caffe's ResNets
_PIXEL_MEAN, _PIXEL_STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)


def add_pruned_config(cfg: CfgNode) -> None:
    """Add MODEL.PRUNED.RUN, the folder of the pruned network, to Detectron2's config."""
    cfg.MODEL.PRUNED = CfgNode({"RUN": ""})


class PrunedBottomUp(Backbone):
    """The network of a run directory, or of what `prune-transfer prune` wrote, in the place of Detectron2's ResNet.

    Its features are named as the ResNet's: res2 of stride 4, res3 of 8 and so on. `norm`, `freeze_at`: as there, and as
    in ClassifierBackbone. `pixel_mean`, `pixel_std`, `input_format`: what the project's images are normalised by and
    the order of their channels; here they become what the network was trained with. ValueError for a folder without a
    network, or without weights of a level that is asked for.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        pixel_mean: Sequence[float] = _PIXEL_MEAN,
        pixel_std: Sequence[float] = _PIXEL_STD,
        input_format: str = "BGR",
    ):
        super().__init__()
        kept = read_kept(Path(run))
        strides = {name: _stride(name) for name in out_features}
        below = tuple(2**k for k in range(_FIRST, max(strides.values()).bit_length()))
        self.network = ClassifierBackbone(kept.model, strides=below, norm=norm, freeze_at=freeze_at)
        absent = sorted(kept.absent & self.network.body.state_dict().keys())
        if absent:
            raise Refusal(
                f"{run}: it has no weights of {len(absent)} tensors up to {out_features[-1]}, such as {absent[0]}"
            )
        self.flips = _is_flipped(input_format)
        scale, shift = _to_the_network(kept, pixel_mean, pixel_std, flips=self.flips)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        shapes = self.network.output_shape()
        self._names = {name: f"s{stride}" for name, stride in strides.items()}
        self._out_features = list(strides)
        self._out_feature_strides = strides
        self._out_feature_channels = {name: shapes[own].channels for name, own in self._names.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, H, W) -> {"res2": (N, C, H/4, W/4), ...}."""
        rgb = x.flip(1) if self.flips else x
        features = self.network(rgb * self.scale + self.shift)
        return {name: features[own] for name, own in self._names.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Width and stride of each feature, as found in the network."""
        return super().output_shape()


@BACKBONE_REGISTRY.register()
def PrunedBackbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The network in MODEL.PRUNED.RUN, with an FPN on top where MODEL.FPN.IN_FEATURES names its features."""
    model = cfg.MODEL
    if "PRUNED" not in model or not model.PRUNED.RUN:
        raise Refusal("MODEL.PRUNED.RUN: name the run directory, or the folder that `prune-transfer prune` wrote")
    if _OTHERS in model.WEIGHTS:
        raise Refusal(f"MODEL.WEIGHTS={model.WEIGHTS!r} would be loaded over the pruned network; set it to ''")
    bottom_up = PrunedBottomUp(
        model.PRUNED.RUN,
        out_features=model.FPN.IN_FEATURES or model.RESNETS.OUT_FEATURES,
        norm=model.RESNETS.NORM,
        freeze_at=model.BACKBONE.FREEZE_AT,
        pixel_mean=model.PIXEL_MEAN,
        pixel_std=model.PIXEL_STD,
        input_format=cfg.INPUT.FORMAT,
    )
    if not model.FPN.IN_FEATURES:
        return bottom_up
    return FPN(
        bottom_up=bottom_up,
        in_features=model.FPN.IN_FEATURES,
        out_channels=model.FPN.OUT_CHANNELS,
        norm=model.FPN.NORM,
        top_block=top_block(bottom_up.output_shape(), cfg),
        fuse_type=model.FPN.FUSE_TYPE,
    )


def _stride(name: str) -> int:
    number = name.removeprefix("res")
    if not number.isdecimal() or int(number) < _FIRST:
        raise Refusal(f"feature {name!r}: the features are named res2 (stride 4), res3, res4 and so on")
    return 2 ** int(number)


def _is_flipped(input_format: str) -> bool:
    if input_format not in ("RGB", "BGR"):
        raise Refusal(f"INPUT.FORMAT={input_format!r}: choose from RGB, BGR")
    return input_format == "BGR"


def _to_the_network(
    kept: KeptNetwork, pixel_mean: Sequence[float], pixel_std: Sequence[float], *, flips: bool
) -> tuple[Tensor, Tensor]:
    """Factor and summand (3, 1, 1) that make (pixel - pixel_mean) / pixel_std the network's (pixel / 255 - mean) / std.

    The given are in the project's order of channels, the network's in RGB.
    """
    order = slice(None, None, -1 if flips else 1)
    given_mean, given_std = (torch.tensor(list(v)[order], dtype=torch.float64) for v in (pixel_mean, pixel_std))
    mean, std = (torch.tensor(v, dtype=torch.float64) * 255 for v in (kept.mean, kept.std))
    if len(given_mean) != len(mean):
        raise Refusal(f"MODEL.PIXEL_MEAN is of {len(given_mean)} channels, the pruned network of {len(mean)}")
    scale, shift = given_std / std, (given_mean - mean) / std
    return scale.float()[:, None, None], shift.float()[:, None, None]
