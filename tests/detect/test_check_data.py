"""What the checker finds in COCO data: files, sizes, boxes, ids, and splits that overlap."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from detect.build import DetectorSettings, make_config
from detect.data import CocoDataset, check_dataset, train_loader
from detect.data.check import check_split, shared_images
from detect.data.problems import KINDS, box_fault, by_kind


def _picture(seed=0, mode="RGB", size=(40, 20)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _encoded(picture, kind, **options):
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _box(k, image, bbox, **more):
    return {"id": k, "image_id": image, "category_id": 0, "bbox": bbox, **more}


def _write(folder, files, boxes=(), **changes):
    """A COCO JSON over files by name (40 x 20, ids from 1); no info, no licences, a category with id 0."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    images = [{"id": k, "file_name": name, "width": 40, "height": 20} for k, name in enumerate(files, 1)]
    coco = {
        "images": images,
        "annotations": list(boxes) or [_box(1, 1, [4, 4, 8, 8])],
        "categories": [{"id": 0, "name": "thing"}, {"id": 7, "name": "other"}],
    }
    (folder / "all.json").write_text(json.dumps(coco | changes))
    return CocoDataset(folder / "all.json", folder)


def _found(dataset):
    return by_kind(check_split(dataset.split).problems)


JPEG = _encoded(_picture(), "JPEG", quality=95)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_pictures_of_8_bits_and_less_are_trained_on(tmp_path, mode):
    dataset = _write(tmp_path, {"a.png": _encoded(_picture(mode=mode), "PNG")})
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(num_classes=2, image_size=20))
    (record,) = next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))
    assert record["image"].shape == (3, 20, 40) and record["instances"].gt_classes.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (JPEG[: len(JPEG) // 2], "images not readable"),
        (JPEG[:-40], "images not readable"),
        (b"no image", "images not readable"),
        (_encoded(Image.fromarray(np.full((20, 40), 60000, dtype=np.uint16)), "PNG"), "images of more than 8 bits"),
        (_encoded(_picture(size=(20, 40)), "PNG"), "images of another size"),
    ],
)
def test_pictures_that_would_corrupt_a_result_are_refused(tmp_path, content, kind):
    dataset = _write(tmp_path, {"a.jpg": JPEG, "b.jpg": content})
    with pytest.raises(ValueError, match=rf"all\.json: 1 of 2 {kind}.*b\.jpg"):
        check_dataset(dataset)


def test_sizes_are_those_of_pictures_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    lying, upright = _picture(1), _picture(2, size=(20, 40))
    files = {"lying.jpg": _encoded(lying, "JPEG", exif=exif), "upright.jpg": _encoded(upright, "JPEG", exif=exif)}
    dataset = _write(tmp_path, files)
    (place,) = _found(dataset)["images of another size than annotated"]
    assert "lying.jpg: 20 x 40 (turned upright as its EXIF orientation says), annotated as 40 x 20" in place
    cfg = make_config(DetectorSettings(num_classes=2, image_size=20))
    good = _write(tmp_path, {"upright.jpg": files["upright.jpg"]})
    (record,) = next(iter(train_loader(good, cfg, batch_size=1, seed=0)))
    assert record["image"].shape == (3, 20, 40)


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
    dataset = _write(tmp_path, {"a.jpg": JPEG}, [_box(1, 1, [4, 4, 8, 8]), _box(2, 1, bbox)])
    assert {k: len(v) for k, v in _found(dataset).items()} == {kind: 1}
    checked = check_split(dataset.split)
    assert checked.sound == (kind == "boxes over the edge by at most a pixel")
    if KINDS[kind].effect == "refused":
        with pytest.raises(ValueError, match=f"1 of 2 {kind}"):
            check_dataset(dataset)
        return
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(num_classes=2, image_size=20))
    (record,) = next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))
    assert len(record["instances"]) == (2 if KINDS[kind].effect == "clipped" else 1)


def test_the_same_number_twice_is_one_pixel_in_voc_and_nothing_in_coco():
    assert box_fault((4, 4, 5, 5), width=9, height=9) == ""
    assert box_fault((4, 4, 5, 5), width=9, height=9, pixel=1) == "boxes empty"
    assert box_fault((4, 4, 4, 5), width=9, height=9, pixel=1) == "boxes inverted"


def test_ids_and_classes(tmp_path):
    boxes = [
        _box(0, 1, [4, 4, 8, 8]),
        _box(0, 1, [5, 4, 8, 8]),
        _box(2, 9, [4, 4, 8, 8]),
        _box(3, 1, [4, 4, 8, 8]) | {"category_id": 3},
    ]
    image = {"file_name": "a.jpg", "width": 40, "height": 20}
    dataset = _write(tmp_path, {"a.jpg": JPEG}, boxes, images=[image | {"id": k} for k in (1, 1, 2)])
    assert {kind: len(places) for kind, places in _found(dataset).items()} == {
        "image ids used twice": 1,
        "images listed twice": 1,
        "annotations of images that are not listed": 1,
        "annotation ids used twice": 1,
        "boxes of an unknown class": 1,
    }


def test_crowds_and_images_without_boxes(tmp_path):
    boxes = [_box(1, 2, [4, 4, 8, 8]), _box(2, 3, [4, 4, 8, 8], iscrowd=1), _box(3, 2, [9, 4, 8, 8], iscrowd=1)]
    dataset = _write(tmp_path, {f"{k}.png": _encoded(_picture(k), "PNG") for k in (1, 2, 3)}, boxes)
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
    dataset = _write(tmp_path, {"a.jpg": JPEG}, categories=categories)
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset)


def test_images_in_two_splits_are_found_by_path_and_by_content(tmp_path):
    a, b, c = (_encoded(_picture(k), "PNG") for k in range(3))
    train = _write(tmp_path / "train", {"1.png": a, "2.png": b})
    test = _write(tmp_path / "test", {"1.png": c, "other.png": b})  # equal names in two folders are two images
    shared = list(shared_images(check_split(train.split), check_split(test.split)))
    assert [p.where for p in shared] == [f"{tmp_path}/test/other.png, the same content as {tmp_path}/train/2.png"]
    again = list(shared_images(check_split(train.split), check_split(train.split)))
    assert [p.where for p in again] == [f"{tmp_path}/train/{k}.png" for k in (1, 2)]


def test_copies_within_a_split_are_counted_not_refused(tmp_path):
    dataset = _write(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG})
    assert list(_found(dataset)) == ["images with the same content as another"]
    check_dataset(dataset)
