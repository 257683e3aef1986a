"""What a pruning method, or masks that are held, add to training: hooks of one small interface."""

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from pruning.masks import Masks


class Effect:
    """What is added to a training; a hook that is not overridden does nothing."""

    uncompilable: str | None = None
    """Why the network cannot be compiled while this acts; None: it can, since it acts between the passes alone."""

    def plan_for(self, steps: int, optimizer: Optimizer | None = None) -> None:
        """The training has `steps` steps of the optimiser in all; ValueError where that is too few.

        Called before anything else, in a run that resumes before its state is loaded. `optimizer` None: nothing is
        trained, only asked.
        """

    def at_start(self) -> None:
        """Before the first step of a run (not called again when a run resumes)."""

    def after_backward(self) -> None:
        """Gradients are complete, the optimiser has not stepped."""

    def after_step(self, lr: float) -> None:
        """The optimiser has stepped with learning rate `lr`."""

    def after_epoch(self) -> None:
        """An epoch ended; the last one included."""

    def masks(self) -> Masks | None:
        """What it leaves of the network that it acts on, by the parameters' names there; None: it removes no weights.

        Those after the last step are saved with the network: pruning gets them as the option `masks` (see
        `Method.continues_masks`), trainings hold them.
        """
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Whatever an exact resume needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
