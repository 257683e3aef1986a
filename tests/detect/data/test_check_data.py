"""What the checker finds in COCO data: files, sizes, boxes, ids, and splits that overlap."""

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image
from support.coco_layout import coco_box, encoded, grey_16_bits, picture, turned, write_coco

from detect.data import check_dataset
from detect.data.check import check_apart, check_split, shared_images
from detect.data.loader import test_loader as every_image_once
from detect.data.loader import train_loader
from detect.data.picture import read_picture
from detect.data.problems import KINDS, box_fault, by_kind
from detect.detector_config import make_config
from detect.settings import DetectorSettings


def _found(dataset):
    return by_kind(check_split(dataset.split).problems)


JPEG = encoded(picture(), "JPEG", quality=95)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_pictures_of_8_bits_and_less_are_trained_on(tmp_path, mode):
    dataset = write_coco(tmp_path, {"a.png": encoded(picture(mode=mode), "TIFF")})
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(image_size=20), num_classes=2)
    (record,) = next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))
    assert record["image"].shape == (3, 20, 40) and record["instances"].gt_classes.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (JPEG[: len(JPEG) // 2], "images not readable"),
        (JPEG[:-40], "images not readable"),
        (b"no image", "images not readable"),
        (encoded(Image.new("F", (40, 20)), "TIFF"), "images of 32 bits a pixel"),
        (encoded(picture(size=(20, 40)), "PNG"), "images of another size"),
    ],
)
def test_pictures_that_would_corrupt_a_result_are_refused(tmp_path, content, kind):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG, "b.jpg": content})
    with pytest.raises(ValueError, match=rf"all\.json: 1 of 2 {kind}.*b\.jpg"):
        check_dataset(dataset)


def test_sizes_are_those_of_pictures_turned_as_their_exif_says(tmp_path):
    exif = turned(6)  # by 90 degrees
    lying, upright = picture(1), picture(2, size=(20, 40))
    files = {"lying.jpg": encoded(lying, "JPEG", exif=exif), "upright.jpg": encoded(upright, "JPEG", exif=exif)}
    dataset = write_coco(tmp_path, files)
    (place,) = _found(dataset)["images of another size than annotated"]
    assert "lying.jpg: 20 x 40 (turned upright as its EXIF orientation says), annotated as 40 x 20" in place
    cfg = make_config(DetectorSettings(image_size=20), num_classes=2)
    good = write_coco(tmp_path, {"upright.jpg": files["upright.jpg"]})
    (record,) = next(iter(train_loader(good, cfg, batch_size=1, seed=0)))
    assert record["image"].shape == (3, 20, 40)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_pictures_are_turned_as_detectron2_turns_them(tmp_path, mode, orientation):
    file = tmp_path / "a.png"
    picture(mode=mode).save(file, exif=turned(orientation))
    assert np.array_equal(np.asarray(read_picture(file)), read_image(str(file), format="RGB"))


def test_where_a_turn_leaves_the_size_boxes_are_of_the_upright_picture(tmp_path):
    dataset = write_coco(tmp_path, {"a.png": encoded(picture(), "PNG", exif=turned(3))})
    (place,) = _found(dataset)["images that EXIF turns, with a size that fits either way"]
    assert place.endswith("a.png: orientation 3; its boxes are taken to be of the upright picture")
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(image_size=20), num_classes=2)
    (record,) = next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))
    stored = torch.from_numpy(np.array(picture())).permute(2, 0, 1)
    assert torch.equal(record["image"], stored.rot90(2, (1, 2)))


def test_of_16_bits_the_upper_8_are_used(tmp_path):
    """As Pillow does with 16 bits of colour; 255 x 256 + 255 is white, 256 is the darkest grey above black."""
    for value, expected in ((65535, 255), (256, 1), (255, 0), (0x8081, 0x80)):
        dataset = write_coco(tmp_path, {"a.png": grey_16_bits(value)})
        check_dataset(dataset)
        assert list(_found(dataset)) == ["images of 16 bits, of which the upper 8 are used"]
        cfg = make_config(DetectorSettings(image_size=20), num_classes=2)
        for loader in (train_loader(dataset, cfg, batch_size=1, seed=0), every_image_once(dataset, cfg)):
            (record,) = next(iter(loader))
            assert record["image"].shape == (3, 20, 40) and record["image"].unique().tolist() == [expected]


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([4, 4, 0, 8], "boxes empty"),
        ([4, 4, -2, 8], "boxes inverted"),
        ([40, 4, 5, 5], "boxes outside the image"),
        ([30, 4, 12, 5], "boxes over the edge by more than a pixel"),
        ([-0.5, 4, 12, 5], "boxes over the edge by at most a pixel"),
        ([4, 4, 8], "annotations incomplete or not numbers"),
        ([4, 4, float("nan"), 8], "annotations incomplete or not numbers"),
    ],
)
def test_boxes(tmp_path, bbox, kind):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, [coco_box(1, 1, [4, 4, 8, 8]), coco_box(2, 1, bbox)])
    assert {k: len(v) for k, v in _found(dataset).items()} == {kind: 1}
    checked = check_split(dataset.split)
    assert checked.sound == (kind == "boxes over the edge by at most a pixel")
    if KINDS[kind].effect == "refused":
        with pytest.raises(ValueError, match=f"1 of 2 {kind}"):
            check_dataset(dataset)
        return
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(image_size=20), num_classes=2)
    (record,) = next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))
    assert len(record["instances"]) == (2 if KINDS[kind].effect == "clipped" else 1)


def test_the_same_number_twice_is_one_pixel_in_voc_and_nothing_in_coco():
    assert box_fault((4, 4, 5, 5), width=9, height=9) == ""
    assert box_fault((4, 4, 5, 5), width=9, height=9, pixel=1) == "boxes empty"
    assert box_fault((4, 4, 4, 5), width=9, height=9, pixel=1) == "boxes inverted"


def test_ids_and_classes(tmp_path):
    boxes = [
        coco_box(0, 1, [4, 4, 8, 8]),
        coco_box(0, 1, [5, 4, 8, 8]),
        coco_box(2, 9, [4, 4, 8, 8]),
        coco_box(3, 1, [4, 4, 8, 8]) | {"category_id": 3},
    ]
    image = {"file_name": "a.jpg", "width": 40, "height": 20}
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, boxes, images=[image | {"id": k} for k in (1, 1, 2)])
    assert {kind: len(places) for kind, places in _found(dataset).items()} == {
        "image ids used twice": 1,
        "images listed twice": 1,
        "annotations of images that are not listed": 1,
        "annotation ids used twice": 1,
        "boxes of an unknown class": 1,
    }


def test_crowds_and_images_without_boxes(tmp_path):
    boxes = [
        coco_box(1, 2, [4, 4, 8, 8]),
        coco_box(2, 3, [4, 4, 8, 8], iscrowd=1),
        coco_box(3, 2, [9, 4, 8, 8], iscrowd=1),
    ]
    dataset = write_coco(tmp_path, {f"{k}.png": encoded(picture(k), "PNG") for k in (1, 2, 3)}, boxes)
    check_dataset(dataset)
    found = dataset.split.summary()
    assert (found["images_without_boxes"], found["crowd"], found["usable"]) == (1, 2, 1)
    assert [record["image_id"] for record in dataset.split.records(filter_empty=True)] == [2]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "category 1 is there twice"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "category 'a' is there twice"),
        ([{"id": 1}], "needs an integer `id` and a `name`"),
    ],
)
def test_categories_are_told_apart(tmp_path, categories, message):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, categories=categories)
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset)


def test_images_in_two_splits_are_found_by_path_and_by_content(tmp_path):
    a, b, c = (encoded(picture(k), "PNG") for k in range(3))
    train = write_coco(tmp_path / "train", {"1.png": a, "2.png": b})
    test = write_coco(tmp_path / "test", {"1.png": c, "other.png": b})  # equal names in two folders are two images
    shared = list(shared_images(check_split(train.split), check_split(test.split)))
    assert [p.where for p in shared] == [f"{tmp_path}/test/other.png, the same content as {tmp_path}/train/2.png"]
    with pytest.raises(ValueError, match=r"1 of 2 images are in .*/train/all\.json too.*allow_shared=true"):
        check_apart(check_split(train.split), check_split(test.split))
    again = list(shared_images(check_split(train.split), check_split(train.split)))
    assert [p.where for p in again] == [f"{tmp_path}/train/{k}.png" for k in (1, 2)]


def test_copies_within_a_split_are_counted_not_refused(tmp_path):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG})
    assert list(_found(dataset)) == ["images with the same content as another"]
    check_dataset(dataset)
