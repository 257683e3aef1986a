"""Batches that no BatchNorm of whatever kind can take are known before a step is spent."""

import pytest
import torch
from torch import nn

from classify.batch_norms import check_smallest_batch, norms_of_single_values
from classify.settings import TrainSettings

IMAGE = (3, 8, 8)


def network(norm, side, *, linear=False):
    pool = nn.AdaptiveAvgPool2d(side)
    tail = [nn.Flatten(), nn.Linear(4 * side * side, 4), norm] if linear else [norm, nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), pool, *tail)


BROKEN = {
    "linear": lambda: network(nn.BatchNorm1d(4), 2, linear=True),
    "map of one pixel": lambda: network(nn.BatchNorm2d(4), 1),
    "synchronised": lambda: network(nn.SyncBatchNorm(4), 1),
    "no statistics": lambda: network(nn.BatchNorm2d(4, track_running_stats=False), 1),
}


def training(**sizes):
    return TrainSettings(epochs=1, lr=0.1, **sizes)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    ("n_images", "batch_size", "accumulate", "fits"),
    [(9, 4, 1, False), (8, 4, 1, True), (10, 4, 1, True), (10, 4, 2, False), (5, 1, 1, False)],
)
def test_a_single_image_at_the_end_is_refused(name, n_images, batch_size, accumulate, fits):
    sizes = training(batch_size=batch_size, accumulate=accumulate)
    model = BROKEN[name]()
    if fits:
        check_smallest_batch(model, sizes, n_images, image=IMAGE)
        return
    with pytest.raises(ValueError, match=f"leaves a single image at the end of {n_images} images, and .*BatchNorm"):
        check_smallest_batch(model, sizes, n_images, image=IMAGE)


def test_maps_of_several_pixels_take_single_images():
    model = network(nn.BatchNorm2d(4), 2)
    check_smallest_batch(model, training(batch_size=4, accumulate=1), 9, image=IMAGE)
    model.train()(torch.zeros(1, *IMAGE))  # as PyTorch finds


@pytest.mark.parametrize("name", ["linear", "map of one pixel"])
def test_the_probe_finds_what_pytorch_refuses_and_leaves_the_network_alone(name):
    model = BROKEN[name]().train()
    before = {key: t.clone() for key, t in model.state_dict().items()}
    assert norms_of_single_values(model, torch.zeros(1, *IMAGE)) == [f"{len(model) - (1 if name == 'linear' else 2)}"]
    assert model.training and all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        model(torch.zeros(1, *IMAGE))
