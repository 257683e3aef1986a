"""Images decoded as they are needed: the same for any number of workers, after a resume, and in parts of a batch."""

import pytest
import torch
from PIL import Image
from support.fabricated_images import encoded, picture, write_images, write_zip

from classify.data.augment import RECIPES
from classify.data.decode import BrokenImage, Crop, centre, random_part
from classify.data.image_files import open_files
from classify.data.images import Batch, stream
from classify.data.layout import read_layout
from classify.data.streamed import StreamedImages


def streamed(root, workers=0):
    files = open_files(root)
    layout = read_layout(root, files.listing())
    return StreamedImages(files, layout.splits["train"], layout.classes, Crop(16, 20), workers)


@pytest.fixture
def pets(tmp_path):
    write_images(tmp_path / "pets" / "cat", 9, width=50)
    write_images(tmp_path / "pets" / "dog", 8, first=100, height=64)
    return tmp_path / "pets"


def plan(n, first=0):
    """Batches of five in a shuffled order, the last one of two."""
    order = torch.randperm(n, generator=stream(3))
    for i, index in list(enumerate(order.split(5)))[first:]:
        yield Batch(index, (3, 0, i))


def batches(images, augment, first=0):
    return list(images.batches(plan(len(images), first), augment))


def equal(some, others):
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("augment", ["imagenet", "cifar", "none"])
def test_two_workers_and_none_give_the_same_batches(pets, augment):
    alone, helped = (batches(streamed(pets, workers), augment) for workers in (0, 2))
    assert [len(labels) for _, labels in alone] == [5, 5, 5, 2]
    assert equal(alone, helped)


def test_workers_read_a_zip_side_by_side(tmp_path):
    write_zip(tmp_path / "pets.zip", {f"{kind}/{i}.png": encoded(i) for kind in ("cat", "dog") for i in range(20)})
    alone, helped = (batches(streamed(tmp_path / "pets.zip", workers), "imagenet") for workers in (0, 2))
    assert len(alone) == 8
    assert equal(alone, helped)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_in_the_middle_of_an_epoch_goes_on_with_the_same_images(pets, workers):
    whole = batches(streamed(pets, workers), "imagenet")
    assert equal(whole[2:], batches(streamed(pets, workers), "imagenet", first=2))


@pytest.mark.parametrize("augment", ["imagenet", "cifar", "none"])
def test_parts_of_a_batch_are_the_batch(pets, augment):
    images, index = streamed(pets), torch.tensor([4, 11, 0, 16, 2])
    ((whole, labels),) = images.batches([Batch(index, (1, 2))], augment)
    parts = [slice(0, 3), slice(3, 5)]
    split = [next(images.batches([Batch(index, (1, 2), part)], augment)) for part in parts]
    assert torch.equal(torch.cat([part for part, _ in split]), whole)
    assert torch.equal(torch.cat([part for _, part in split]), labels)
    assert labels.tolist() == [0, 1, 0, 1, 0]


def test_batch_recipes_are_those_of_images_in_memory(pets):
    images, batch = streamed(pets), Batch(torch.arange(6), (1, 2))
    ((augmented, _),) = images.batches([batch], "cifar")
    assert torch.equal(augmented, RECIPES["cifar"](images.take(batch.index), batch.generator()))


def test_the_trainings_random_numbers_are_left_alone(pets):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(streamed(pets, 2), "imagenet")
    batches(streamed(pets), "imagenet")
    assert torch.equal(before, torch.get_rng_state())


def test_keys_and_positions_draw_other_parts(pets):
    index = torch.zeros(40, dtype=torch.int64)  # the same photograph 40 times
    images = streamed(pets)
    (one, _), (other, _) = images.batches([Batch(index, (0,)), Batch(index, (1,))], "imagenet")
    assert len({image.numpy().tobytes() for image in torch.cat([one, other])}) > 70


def test_random_parts_are_inside_and_mirrored_half_of_the_time():
    photograph = picture(7, width=60, height=40)  # blue rises from left to right
    parts = torch.stack([random_part(photograph, 16, seed) for seed in range(300)]).int()
    assert parts[:, 0].unique().tolist() == [7]
    rises = (parts[:, 2, :, -1] - parts[:, 2, :, 0]).float().mean(1)
    assert 110 < int((rises < 0).sum()) < 190
    # At least 8 % of the area at a width of at most 4/3 of the height: no narrower than sqrt(.08 * 3/4) of 40 of 60
    assert float(rises.abs().min()) > 10
    assert float(rises.abs().max()) > 150


def test_the_centre_by_hand():
    photograph = picture(0, width=80, height=40)
    part = centre(photograph, Crop(20, 20))  # 80 x 40 becomes 40 x 20, of which columns 10 to 29 stay
    assert part.shape == (3, 20, 20)
    blue = part[2, 5].tolist()
    assert blue == sorted(blue)
    assert blue[0] == pytest.approx(255 * 0.25 + 1.6, abs=2)
    assert blue[-1] == pytest.approx(255 * 0.75 - 1.6, abs=2)


def test_large_photographs_are_decoded_small_and_look_the_same(tmp_path):
    (tmp_path / "large.jpg").write_bytes(encoded(90, "JPEG", width=640, height=640))
    exact = centre(picture(90, width=640, height=640), Crop(16, 16)).int()
    files = open_files(tmp_path)
    with Image.open(files.open("large.jpg")) as opened:
        found = centre(opened, Crop(16, 16)).int()
        assert opened.size == (80, 80)  # an eighth, the smallest that a decoder makes; twice 16 would be less
    assert int((found - exact).abs().max()) <= 4


def test_a_file_that_is_damaged_later_is_named(pets):
    images = streamed(pets)
    (pets / "cat" / "003.png").write_bytes(b"no picture")
    with pytest.raises(BrokenImage, match=r"cat/003\.png cannot be read .*; check: full finds it at the start"):
        batches(images, "none")


def test_unknown_augmentation_is_refused(pets):
    with pytest.raises(ValueError, match="unknown augmentation 'mixup'; choose from none, shift, cifar, imagenet"):
        batches(streamed(pets), "mixup")


def test_fingerprint_follows_from_names_sizes_labels_and_crop(pets):
    known = streamed(pets).fingerprint()
    assert streamed(pets, 2).fingerprint() == known
    other_crop = StreamedImages(
        *(getattr(streamed(pets), key) for key in ("files", "labelled", "classes")), Crop(16, 16)
    )
    assert other_crop.fingerprint() != known
    (pets / "cat" / "003.png").write_bytes(encoded(3, width=51))
    changed = streamed(pets).fingerprint()
    (pets / "cat" / "003.png").rename(pets / "dog" / "more.png")
    assert len({known, changed, streamed(pets).fingerprint()}) == 3
