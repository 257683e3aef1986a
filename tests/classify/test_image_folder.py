"""Images from a folder with one folder per class."""

import numpy as np
import pytest
from PIL import Image

from classify.data.folder import load_folder


def write_image(path, colour, width=40, height=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), colour, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        write_image(tmp_path / "cats" / f"{i}.png", 100 + i)
    write_image(tmp_path / "dogs" / "0.jpeg", 200)
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    return tmp_path


def test_classes_take_turns(folder):
    found = load_folder(folder, image_size=32, n_images=3)
    assert found.classes == ("cats", "dogs")
    assert found.labels.tolist() == [0, 1, 0]
    assert found.images.shape == (3, 3, 32, 32)


def test_all_images_where_fewer_are_there_than_asked(folder):
    found = load_folder(folder, image_size=32, n_images=100)
    assert sorted(found.images[found.labels == 0].float().mean((1, 2, 3)).tolist()) == [100, 101, 102]
    assert found.labels.tolist() == [0, 1, 0, 0]


def test_seed_decides_which_images(tmp_path):
    for i in range(50):
        write_image(tmp_path / "a" / f"{i}.png", i)

    def drawn(seed):
        return load_folder(tmp_path, image_size=32, n_images=8, seed=seed).images[:, 0, 0, 0].tolist()

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_centre_is_cut_out_of_the_longer_side(tmp_path):
    picture = np.zeros((32, 96, 3), dtype=np.uint8)
    picture[:, 32:64] = (255, 128, 0)  # the middle third of a wide image
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).save(tmp_path / "a" / "0.png")
    (image,) = load_folder(tmp_path, image_size=32, n_images=1).images
    assert image.flatten(1).float().mean(1).tolist() == [255, 128, 0]


def test_large_images_lose_a_margin_as_on_imagenet(tmp_path):
    picture = np.zeros((256, 256, 3), dtype=np.uint8)
    picture[16:240, 16:240] = 255  # 224 of 256 pixels
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).save(tmp_path / "a" / "0.png")
    (image,) = load_folder(tmp_path, image_size=224, n_images=1).images
    assert int(image.min()) == 255


def test_folder_without_classes_is_refused(tmp_path):
    write_image(tmp_path / "0.png", 1)
    with pytest.raises(ValueError, match=r"0\.png is neither class/image nor train/class/image"):
        load_folder(tmp_path, image_size=32, n_images=1)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no image in it; images are expected as class/image\.png"):
        load_folder(tmp_path, image_size=32, n_images=1)


def test_class_without_images_is_refused(folder):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no image in it; files read are \.jpg, \.jpeg, \.png"):
        load_folder(folder, image_size=32, n_images=1)


def test_damaged_image_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read: a/0\.png \(no image of a known format\)"):
        load_folder(tmp_path, image_size=32, n_images=1)
