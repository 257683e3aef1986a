"""Train, evaluate and fine-tune classifiers.

Train a network, and fine-tune half of it for as long again:

    from pathlib import Path
    import torch, classify, pruning

    data = classify.open_splits("cifar10", root=Path("data"), download=True)
    model = classify.build("resnet20", num_classes=10)
    settings = classify.TrainSettings(epochs=160, batch_size=64, lr=0.1)
    run = classify.TrainRun(mean=data.mean, std=data.std)
    classify.train_classifier(model, data.train, settings=settings, run=run, checkpoint=Path("dense.pt"))

    groups, batch = classify.channel_groups("resnet20", model), torch.randn(2, 3, 32, 32)
    half, arch = pruning.Selection(ratio=0.5), classify.arch("resnet20")
    pruned = pruning.prune(model, groups, "l1_filter", half, batch=batch, arch=arch)
    classify.train_classifier(pruned.model, data.train, settings=settings, run=run, checkpoint=Path("small.pt"))
    print(classify.evaluate_classifier(pruned.model, data.test, mean=data.mean, std=data.std).top1)

`rebuild` makes the pruned network again from its plan, with random weights, as training from scratch wants it:

    scratch = classify.rebuild(pruned.plan, num_classes=10)

`list_models` and `DATASETS` name what there is. A training that is stopped goes on from its checkpoint.
"""

from prune_transfer import __version__ as __version__
from prune_transfer import check_packages

check_packages("pruning", "training")  # before they are imported

from classify.data import DATASETS, open_splits
from classify.evaluate import evaluate_classifier
from classify.models import arch, build, channel_groups, list_models, rebuild
from classify.settings import TrainRun, TrainSettings
from classify.train import train_classifier

__all__ = [
    "DATASETS",
    "TrainRun",
    "TrainSettings",
    "arch",
    "build",
    "channel_groups",
    "evaluate_classifier",
    "list_models",
    "open_splits",
    "rebuild",
    "train_classifier",
]
