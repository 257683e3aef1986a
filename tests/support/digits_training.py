"""A training of seconds on scikit-learn's 8x8 digits, for what a method adds to training."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from classify.data.images import ImageSet
from classify.evaluate import evaluate_classifier
from classify.settings import TrainRun, TrainSettings
from classify.train import train_classifier

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def digit_set(n_images=640):
    """The first scans as RGB images (N, 3, 8, 8)."""
    digits = load_digits()
    images = torch.tensor(digits.images[:n_images] * 15).to(torch.uint8)  # 0..16 -> 0..240
    labels = torch.tensor(digits.target[:n_images]).long()
    return ImageSet(images[:, None].repeat(1, 3, 1, 1), labels, tuple("0123456789"))


def small_vgg():
    """Two convolutions of 16 and 32 channels with BatchNorm, and a linear layer; 20 steps an epoch train it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def train_on_digits(model, effects, folder, *, epochs):
    """Train in place at learning rate 0.1; `folder` takes the checkpoint."""
    settings = TrainSettings(epochs=epochs, batch_size=32, lr=0.1)
    run = TrainRun(mean=MEAN, std=STD, precision="float32")
    train_classifier(model, digit_set(), settings=settings, run=run, checkpoint=folder / "checkpoint", effects=effects)


def accuracy(model):
    """Percent of the training digits; what matters here is that pruning does not lose it."""
    return evaluate_classifier(model, digit_set(), mean=MEAN, std=STD).top1
