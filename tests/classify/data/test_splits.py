"""Holding out, by hand: every class gives its share, the rest stays, and the seed decides which images."""

import pytest
import torch

from classify.data.images import ImageSet
from classify.data.splits import Splits, held_out

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2] * 3)


@pytest.mark.parametrize(
    ("amount", "of_each"),
    [
        (4, [2, 1, 1]),
        (1 / 3, [2, 1, 1]),
        (6, [3, 2, 1]),  # 3, 1.5 and 1.5: the tie goes to the first
        (1, [1, 0, 0]),  # 0.5, 0.25 and 0.25
        (0.5, [3, 2, 1]),
    ],
)
def test_each_class_gives_its_share(amount, of_each):
    kept, held = held_out(LABELS, amount, seed=0, split="val")
    assert torch.bincount(LABELS[held], minlength=3).tolist() == of_each
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(12))
    assert kept.tolist() == sorted(kept.tolist())


def test_seed_and_name_decide_which_images():
    labels = torch.zeros(1000, dtype=torch.int64)

    def drawn(seed, split="val"):
        return held_out(labels, 50, seed=seed, split=split)[1].tolist()

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0) != drawn(0, "test")


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (0, r"val=0 must be a fraction between 0 and 1, or a whole number of images from 1"),
        (-1, "val=-1 must be a fraction"),
        (2.5, "val=2.5 must be a fraction"),
        (0.01, "val=0.01 of 12 images is 0; it must be from 1 to 11"),
        (12, "val=12 of 12 images is 12; it must be from 1 to 11"),
        (11, "val=11 takes all 3 images of class number 1; leave some to train"),
    ],
)
def test_shares_that_leave_nothing_are_refused(amount, message):
    with pytest.raises(ValueError, match=message):
        held_out(LABELS, amount, seed=0, split="val")


def test_fingerprint_of_splits_knows_which_split_is_which():
    first, second = (
        ImageSet(torch.full((1, 1, 2, 2), value, dtype=torch.uint8), torch.tensor([0]), ("a",)) for value in (1, 2)
    )
    splits = Splits(first, second, second, (0.5,), (0.5,))
    assert splits.fingerprint == Splits(first, second, second, (0.1,), (0.5,)).fingerprint
    assert splits.fingerprint != Splits(second, first, second, (0.5,), (0.5,)).fingerprint
