"""The accuracy of a classifier on the splits that did not train it, as a result records it."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from classify.data import Splits
from classify.evaluate import evaluate_classifier
from study.networks import Network


def accuracy(
    model: nn.Module, data: Splits, network: Network, splits: Sequence[str] = ("val", "test")
) -> dict[str, Any]:
    """Top-1, top-5 (percent), loss and number of images of each split."""
    found: dict[str, Any] = {}
    images = {"val": data.val, "test": data.test}
    for split in splits:
        scores = evaluate_classifier(model, images[split], mean=network.mean, std=network.std)
        found |= {
            f"{split}_top1": scores.top1,
            f"{split}_top5": scores.top5,
            f"{split}_loss": scores.loss,
            f"{split}_images": scores.n,
        }
    return found
