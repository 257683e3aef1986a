"""Batches that a BatchNorm cannot be trained on: those that give it one value a channel, which has no variance."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.settings import TrainSettings
from pruning.errors import Refusal
from pruning.modes import evaluation_mode


def norms_of_single_values(model: nn.Module, example: Tensor) -> list[str]:
    """BatchNorms of any kind that read one value a channel of each image: behind linear layers, on maps of 1x1.

    `example`: any input (1, C, H, W) of the size that is trained on. The network is looked at, not changed.
    """
    found: list[str] = []
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    names: dict[nn.Module, str] = {module: name for name, module in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[0] * inputs[0].shape[1]:
            found.append(names[norm])

    hooks = [norm.register_forward_pre_hook(note) for norm in names]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(torch.cat([example, example]))  # two images: one without running statistics could not take one
    finally:
        for hook in hooks:
            hook.remove()
    return found


def check_smallest_batch(
    model: nn.Module, settings: TrainSettings, n_images: int, *, image: tuple[int, int, int]
) -> None:
    """ValueError where an epoch of `n_images` of shape `image` ends with a part that some BatchNorm cannot take."""
    last = n_images % settings.batch_size or settings.batch_size
    if last // settings.accumulate >= 2 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    parameter = next(model.parameters())
    example = torch.zeros(1, *image, dtype=parameter.dtype, device=parameter.device)
    single = norms_of_single_values(model, example)
    if single:
        kind = type(model.get_submodule(single[0])).__name__
        raise Refusal(
            f"batch_size={settings.batch_size} (accumulate={settings.accumulate}) leaves a single image at the end of"
            f" {n_images} images, and {kind} needs two where an image gives it one value a channel"
            f" ({', '.join(single[:3])}): choose another batch size"
        )
