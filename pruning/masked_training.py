"""Train only the weights that a mask leaves, the same ones throughout or others as the training goes on."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.effect import Effect
from pruning.errors import Refusal
from pruning.masks import Masks

_STEPS = ".steps"  # beside masks by parameter name, of which none begins so


class HoldMasks(Effect):
    """Removed weights stay exactly zero, whatever the optimiser's momentum; the masks travel in the checkpoint.

    Their gradients are zeroed as well, so that a norm of the gradients counts only what is trained.
    """

    def __init__(self, model: nn.Module, masks: Masks):
        masks.check_fit(model)
        self._model = model
        self._masks = _beside(model, masks)

    def at_start(self) -> None:
        self._masks.apply(self._model)

    def after_backward(self) -> None:
        for name, mask in self._masks.items():
            grad = self._model.get_parameter(name).grad
            if grad is not None:
                grad.masked_fill_(~mask, 0)

    def after_step(self, lr: float) -> None:
        # a zero gradient is not enough: momentum that a weight had when it was removed moves it on
        self._masks.apply(self._model)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks of a checkpoint; ValueError unless they mask the same parameters."""
        if state.keys() != self._masks.keys():
            odd = sorted(state.keys() ^ self._masks.keys())
            raise Refusal(f"the checkpoint masks other parameters than this run: {', '.join(odd)}")
        masks = Masks(state)
        masks.check_fit(self._model)
        self._masks = _beside(self._model, masks)


class ChangingMasks(HoldMasks):
    """Masks that are held while they change: those who derive from it call `change`, in any hook.

    They start as `masks`, which must name every parameter that may lose weights, in its shape: single weights or whole
    channels. `steps_done` counts the optimiser's steps, also over a resume.
    """

    def __init__(self, model: nn.Module, masks: Masks):
        super().__init__(model, masks)
        self.steps_done = 0
        self._optimizer: Optimizer | None = None

    def plan_for(self, steps: int, optimizer: Optimizer | None = None) -> None:
        self._optimizer = optimizer

    def change(self, masks: Masks) -> None:
        """Hold these from now on. What they remove is zero, and so is what the optimiser remembers of it.

        So a weight that comes back later does so as zero, at rest.
        """
        if masks.keys() != self._masks.keys():
            raise ValueError(f"masks over other parameters: {sorted(masks.keys() ^ self._masks.keys())}")
        masks.check_fit(self._model)
        self._masks = _beside(self._model, masks)
        self._masks.apply(self._model)
        if self._optimizer is None:
            return
        for name, mask in self._masks.items():
            for remembered in self._optimizer.state.get(self._model.get_parameter(name), {}).values():
                if isinstance(remembered, Tensor) and remembered.shape == mask.shape:
                    remembered.masked_fill_(~mask, 0)

    def masks(self) -> Masks:
        return self._masks

    def after_step(self, lr: float) -> None:
        super().after_step(lr)
        self.steps_done += 1

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), _STEPS: torch.tensor(self.steps_done)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict({name: mask for name, mask in state.items() if name != _STEPS})
        self.steps_done = int(state[_STEPS])


def reinitialise_surviving(model: nn.Module, masks: Masks, *, generator: torch.Generator | None = None) -> None:
    """Draw every convolution weight of `model` anew, in place, and apply `masks`.

    Normal with std sqrt(2 / n), where n is the number of surviving weights over the input channels that a filter
    sees: the dense fan-out k * k * out where nothing was removed. This is the scratch initialisation of unstructured
    pruning in the released code of Liu et al., ICLR 2019. Biases, normalisation and linear layers stay as they are.
    """
    masks.check_fit(model)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        weight = module.weight.data
        survivors = int(masks[f"{name}.weight"].sum()) if f"{name}.weight" in masks else weight.numel()
        if survivors:  # a layer that lost everything is all zero below
            weight.normal_(0, math.sqrt(2 * weight.shape[1] / survivors), generator=generator)
    masks.apply(model)


def widen_surviving(model: nn.Module, masks: Masks) -> None:
    """Multiply every masked convolution weight by sqrt(all / surviving), in place, and apply `masks`.

    For a `model` whose weights are newly drawn with a deviation of their own: sqrt(2 / (k * k * out)) becomes that of
    `reinitialise_surviving`, any other grows alike, and masks that remove nothing change nothing.
    """
    # sqrt(2 / (survivors / in)) over sqrt(2 / (all / in)) is sqrt(all / survivors)
    masks.check_fit(model)
    convolutions = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    with torch.no_grad():
        for name in convolutions & masks.keys():
            survivors = int(masks[name].sum())
            if survivors:
                model.get_parameter(name).mul_(math.sqrt(masks[name].numel() / survivors))
    masks.apply(model)


def _beside(model: nn.Module, masks: Masks) -> Masks:
    """The masks on the devices of their parameters."""
    return Masks({name: mask.to(model.get_parameter(name).device) for name, mask in masks.items()})
