"""What a network with masks costs when a removed weight counts as no parameter and no multiply-add."""

from torch import Tensor, nn

from pruning.cost import count_macs, count_params
from pruning.masks import Masks
from pruning.pattern import map_areas


def masked_costs(model: nn.Module, masks: Masks, example: Tensor) -> tuple[int, int]:
    """Params and multiply-adds of the weights that `masks` leave, for one input `example` (1, C, H, W).

    Hardware does not save what is counted here; equal-compute budgets of the literature count so.
    """
    areas = map_areas(model, example)
    removed = {name.removesuffix(".weight"): int((~mask).sum()) for name, mask in masks.items()}
    params = count_params(model) - sum(removed.values())
    return params, count_macs(model, example) - sum(n * areas[layer] for layer, n in removed.items())
