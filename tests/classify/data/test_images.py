"""The image set refuses what training could not use; its statistics are those of a hand calculation."""

import pytest
import torch

from classify.data.images import ImageSet, balanced_indices, channel_mean_std


def test_mean_and_std_of_each_channel_by_hand():
    images = torch.zeros(2, 3, 1, 2, dtype=torch.uint8)
    images[:, 0] = 255  # constant: mean 1, std 0
    images[0, 1] = 255  # half black, half white: mean 0.5, std 0.5
    images[0, 2, 0, 0] = 51  # one pixel of four at 0.2: mean 0.05, variance 0.01 - 0.0025
    mean, std = channel_mean_std(images)
    assert mean == pytest.approx((1.0, 0.5, 0.05))
    assert std == pytest.approx((0.0, 0.5, 0.0075**0.5))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(2, 2, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "empty"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"int64 \(2,\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), r"0\.\.2, outside 0\.\.1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), r"-1\.\.0, outside 0\.\.1"),
    ],
)
def test_bad_images_and_labels_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, ("a", "b"))


def test_balanced_indices_by_hand():
    """Classes take turns by order of appearance; class 2 runs out after one."""
    labels = torch.tensor([0, 0, 0, 1, 2, 1, 0])
    assert balanced_indices(labels, 5).tolist() == [0, 3, 4, 1, 5]
    assert sorted(balanced_indices(labels, 100).tolist()) == list(range(7))
    with pytest.raises(ValueError, match="n_images=0"):
        balanced_indices(labels, 0)


def test_fingerprint_follows_from_pixels_labels_and_classes():
    images, labels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), torch.tensor([0, 1])
    known = ImageSet(images, labels, ("a", "b")).fingerprint()
    assert len(known) == 64
    assert ImageSet(images.clone(), labels.clone(), ("a", "b")).fingerprint() == known
    changed = [(images + 1, labels, ("a", "b")), (images, 1 - labels, ("a", "b")), (images, labels, ("a", "c"))]
    prints = {ImageSet(*parts).fingerprint() for parts in changed}
    assert len(prints | {known}) == 4
