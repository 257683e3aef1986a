"""Classification networks of timm, where it is installed (it is an optional dependency)."""

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from pruning.errors import Refusal

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

PREFIX = "timm/"


def find_timm(name: str) -> tuple[partial[nn.Module], int] | None:
    """How to build timm's network `name` (with or without the prefix `timm/`) and its input side; None if unknown."""
    if find_spec("timm") is None:
        return None
    import timm  # here, not above: a second to import, and needed by few

    plain = name.removeprefix(PREFIX)
    if not timm.is_model(plain):
        return None
    config = timm_config(plain)
    return partial(_build, plain), config.input_size[-1] if config else 224


def timm_config(name: str) -> "PretrainedCfg | None":
    """timm's own configuration of its weights (input size, mean and deviation); None for what timm does not know."""
    if find_spec("timm") is None:
        return None
    import timm

    return timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=True)


def _build(name: str, num_classes: int, **options: Any) -> nn.Module:
    import timm

    if "checkpoint_path" in options:
        raise Refusal(f"architecture {name!r}: give weights as classifier.weights, not as checkpoint_path")
    return timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
