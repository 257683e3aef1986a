"""Accuracy of a classifier: sums over samples divided by the samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data.augment import normalize
from classify.data.images import Batch, Images
from pruning.modes import evaluation_mode


@dataclass(frozen=True)
class Scores:
    """Top-1 and top-5 accuracy in percent, mean cross-entropy in nats, and the number of samples.

    `correct` (n,): is the top-1 answer right, image by image in their order.
    """

    top1: float
    top5: float
    loss: float
    n: int
    correct: Tensor = field(repr=False, compare=False)


def evaluate_classifier(
    model: nn.Module, images: Images, *, mean: Sequence[float], std: Sequence[float], batch_size: int = 256
) -> Scores:
    """Evaluate on every image once, in evaluation mode and float32; the model's mode is restored.

    `mean`, `std`: the input normalisation, RGB in 0..1.
    """
    device = next(model.parameters()).device
    correct: list[Tensor] = []
    correct5 = 0
    loss = 0.0
    with evaluation_mode(model), torch.inference_mode():
        plan = (Batch(index, ()) for index in torch.arange(len(images)).split(batch_size))
        for pixels, targets in images.batches(plan, "none"):
            labels = targets.to(device)
            logits = model(normalize(pixels.to(device), mean, std)).float()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (N, 5)
            hits = ranked == labels[:, None]
            correct.append(hits[:, 0].cpu())
            correct5 += int(hits.sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    n = len(images)
    right = torch.cat(correct)
    return Scores(100 * int(right.sum()) / n, 100 * correct5 / n, loss / n, n, right)
