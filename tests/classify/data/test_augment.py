"""Augmentations checked pixel by pixel on images small enough to write down."""

import pytest
import torch
from torch.nn import functional as F

from classify.data.augment import RECIPES, augmentation, normalize, random_crop, random_flip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(1))


def test_crop_without_padding_is_the_identity():
    images = random_images(3, 3, 4, 5)
    assert torch.equal(random_crop(images, 0, seeded()), images)


def test_crop_equals_padding_and_slicing_each_image_by_the_drawn_shift():
    images = random_images(8, 3, 4, 5)
    tops, lefts = torch.randint(5, (2, 8), generator=seeded()).tolist()
    padded = F.pad(images, [2, 2, 2, 2])
    expected = torch.stack(
        [image[:, top : top + 4, left : left + 5] for image, top, left in zip(padded, tops, lefts, strict=True)]
    )
    assert len(set(zip(tops, lefts, strict=True))) > 3
    assert torch.equal(random_crop(images, 2, seeded()), expected)


def test_crop_by_one_pixel_gives_the_nine_shifts_of_a_dot():
    dot = torch.zeros(300, 1, 3, 3, dtype=torch.uint8)
    dot[:, :, 1, 1] = 7
    moved = random_crop(dot, 1, seeded())
    positions = moved.flatten(1).argmax(1)
    assert moved.flatten(1).sum(1).eq(7).all()
    assert positions.unique().tolist() == list(range(9))


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match="at least 0 pixels, got -1"):
        random_crop(random_images(1, 3, 4, 4), -1, seeded())


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    images = torch.tensor([1, 2, 3], dtype=torch.uint8).expand(400, 3, 2, 3)
    flipped = random_flip(images, seeded())
    rows = flipped[:, 0, 0].tolist()
    assert rows.count([1, 2, 3]) + rows.count([3, 2, 1]) == 400
    assert 160 < rows.count([3, 2, 1]) < 240
    assert torch.equal(flipped, flipped[:, :1, :1].expand_as(flipped))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_depend_on_images_and_generator_alone(name):
    images = random_images(16, 3, 8, 8)
    before = images.clone()
    first = augmentation(name)(images, seeded())
    assert torch.equal(first, augmentation(name)(images, seeded()))
    assert torch.equal(images, before)
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, augmentation(name)(images, seeded(5))) == (name == "none")


def test_shift_never_mirrors():
    images = torch.zeros(200, 3, 16, 16, dtype=torch.uint8)
    images[..., 8, 7], images[..., 8, 8] = 1, 2
    moved = RECIPES["shift"](images, seeded())
    assert moved.flatten(1).argmax(1).unique().numel() > 20
    assert torch.equal(moved.eq(1).flatten(2).int().argmax(2) + 1, moved.eq(2).flatten(2).int().argmax(2))


def test_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match="'mixup'; choose from none, shift, cifar, imagenet"):
        augmentation("mixup")


def test_an_augmentation_of_files_does_not_fit_images_in_memory():
    with pytest.raises(ValueError, match=r"out of an image file.* choose from none, shift, cifar, or in_memory: false"):
        augmentation("imagenet")


def test_normalize_by_hand():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    values = normalize(images, mean=(0.5, 0.5, 0.1), std=(0.25, 0.5, 0.2))
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == pytest.approx([-2.0, 1.0, 0.5])


def test_normalize_refuses_a_zero_std_and_float_images():
    with pytest.raises(ValueError, match="above 0"):
        normalize(random_images(1, 3, 2, 2), (0.5, 0.5, 0.5), (0.2, 0.0, 0.2))
    with pytest.raises(ValueError, match=r"uint8, got torch\.float32"):
        normalize(torch.zeros(1, 3, 2, 2), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
