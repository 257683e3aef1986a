"""Distillation: a pruned network is retrained on the answers of the unpruned one as well as on the labels.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531), section 2, with
softmaxes q of the logits over a temperature T and a weight w:

    loss = (1 - w) cross-entropy(labels) + w T^2 KL(q_teacher || q_student)

They write the cross-entropy with q_teacher, which is larger by the entropy of q_teacher and has the same gradient: of
the divergence 0 means that the student answers as its teacher does. T^2 keeps the gradient's size as T changes.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from training.options import Section


class Distillation(Section):
    """How a classifier's fine-tuning is distilled."""

    weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the teacher's answers in the loss; the labels have the rest."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Number that logits are divided by before they are compared."""


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(q_teacher || q_student) of logits (N, C), summed over the rows, in float32."""
    ours, wanted = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, wanted, reduction="sum", log_target=True)


def freeze(network: nn.Module) -> None:
    """Evaluation mode and no gradients of its parameters, in place: nothing of `network` moves any more."""
    network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Teacher:
    """The unpruned classifier, which is frozen, and how much it counts."""

    network: nn.Module
    settings: Distillation

    def __post_init__(self) -> None:
        freeze(self.network)

    def soften(self, loss: Tensor, logits: Tensor, inputs: Tensor) -> Tensor:
        """A batch's loss, a sum over the images, whose student gave `logits` (N, C) for `inputs` (N, C, H, W)."""
        with torch.no_grad():
            answers = self.network(inputs)
        weight = self.settings.weight
        return (1 - weight) * loss + weight * divergence(logits, answers, self.settings.temperature)
