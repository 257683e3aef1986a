"""The one place that changes the modes of a model's parts for a while and puts them back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has its own mode again, whatever was done to it meanwhile.

    Module by module, not `model.train(mode)`: parts may differ, as a frozen BatchNorm in a network that trains does.
    """
    modes = {m: m.training for model in models for m in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
