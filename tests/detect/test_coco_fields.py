"""Every field of COCO's JSON with what people's files have in it: read, repaired with a note, or named."""

import json

import pytest
from support.coco_layout import coco_box, encoded, picture, turned, write_coco

from detect.data import CocoDataset, check_dataset
from detect.data.problems import by_kind
from detect.evaluate import score_detections

JPEG = encoded(picture(), "JPEG", quality=95)
GOOD = coco_box(1, 1, [4, 4, 8, 8])
NAN, INFINITE = float("nan"), float("inf")


def with_image(**changes):
    entry = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 20} | changes
    return lambda folder: write_coco(folder, {"a.jpg": JPEG}, images=[{k: v for k, v in entry.items() if v is not ...}])


def with_annotation(**changes):
    entry = GOOD | {"id": 2} | changes
    boxes = [GOOD, {k: v for k, v in entry.items() if v is not ...}]
    return lambda folder: write_coco(folder, {"a.jpg": JPEG}, boxes)


@pytest.mark.parametrize("side", [40.0, "40", "40.0"])
def test_sizes_are_numbers_however_written(tmp_path, side):
    split = with_image(width=side)(tmp_path).split
    assert (split.images[0].width, split.images[0].height) == (40, 20) and split.problems == ()


@pytest.mark.parametrize(
    ("changes", "orientation", "size"),
    [
        ({"width": None}, 1, (40, 20)),
        ({"height": ...}, 1, (40, 20)),
        ({"width": 0, "height": 0}, 6, (20, 40)),
        ({"width": ..., "height": ...}, 6, (20, 40)),
    ],
)
def test_a_size_that_is_absent_is_the_upright_picture_s(tmp_path, changes, orientation, size):
    dataset = with_image(**changes)(tmp_path)
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG", exif=turned(orientation)))
    checked = check_dataset(dataset)
    assert (checked.split.images[0].width, checked.split.images[0].height) == size
    (note,) = dataset.split.summary()["notes"]
    assert "all.json: 1 images without a size, taken from the file (repaired), such as a.jpg" in note


@pytest.mark.parametrize(
    "changes",
    [
        {"width": "wide"},
        {"width": [40]},
        {"height": -20},
        {"height": 20.5},
        {"height": NAN},
        {"height": INFINITE},
        {"width": True},
        {"id": [1]},
        {"id": None},
        {"id": ...},
        {"id": 1.5},
        {"id": NAN},
        {"id": True},
        {"file_name": ...},
        {"file_name": None},
        {"file_name": ["a.jpg"]},
        {"file_name": ""},
    ],
)
def test_an_image_that_cannot_be_read_is_named_with_the_key_and_the_value(tmp_path, changes):
    ((key, value),) = changes.items()
    with pytest.raises(ValueError) as error:
        _ = with_image(**changes)(tmp_path).split
    shown = "(missing)" if value is ... else repr(value)
    assert "all.json: an image needs" in str(error.value) and f"{key} {shown} is no" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"image_id": value} for value in ([1], None, ..., 1.5, NAN, True, {})),
        *({"category_id": value} for value in ([0], None, ..., 0.5, INFINITE, False)),
        {"id": [2]},
        *({"bbox": value} for value in ([4, 4, 8], [4, 4, NAN, 8], ["4", 4, 8, 8], [4, 4, True, 8], "4 4 8 8", 7)),
        {"bbox": {"x": 4, "y": 4, "w": 8, "h": 8}},
        {"bbox": [4, 4, None, 8]},
        {"bbox": [4, 4, 10**400, 8]},
        *({"bbox": value} for value in (..., None, [])),
        *({"area": value} for value in ("64", [64], NAN, INFINITE, True)),
        *({"iscrowd": value} for value in ("yes", [0], 2, -1, NAN)),
    ],
)
def test_an_annotation_that_cannot_be_read_is_named_with_the_key_and_the_value(tmp_path, changes):
    ((key, value),) = changes.items()
    with pytest.raises(ValueError) as error:
        check_dataset(with_annotation(**changes)(tmp_path))
    shown = "(missing)" if value is ... else repr(value)[:60]
    assert "all.json: 1 of 2 annotations incomplete or not numbers, such as annotation" in str(error.value)
    assert f"{key} {shown}" in str(error.value)


@pytest.mark.parametrize("entry", [None, 3, [1, 2], "a"])
def test_entries_that_are_no_objects_are_named(tmp_path, entry):
    with pytest.raises(ValueError, match="an annotation is an object, not"):
        check_dataset(write_coco(tmp_path / "a", {"a.jpg": JPEG}, [GOOD, entry]))
    with pytest.raises(ValueError, match="an image needs an `id` and a `file_name`, not"):
        check_dataset(write_coco(tmp_path / "b", {"a.jpg": JPEG}, images=[entry]))
    with pytest.raises(ValueError, match="a category needs an integer `id` and a `name`"):
        check_dataset(write_coco(tmp_path / "c", {"a.jpg": JPEG}, categories=[entry]))


@pytest.mark.parametrize("value", ["0", 0.0, 0, "0 ", "-0"])
def test_an_id_is_the_same_on_both_sides_as_a_number_and_as_a_text(tmp_path, value):
    boxes = [GOOD | {"category_id": value, "image_id": "1"}, GOOD | {"id": 2, "image_id": 1.0}]
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, boxes, categories=[{"id": "0", "name": "thing"}])
    if value == "-0":  # a text of its own
        assert list(by_kind(dataset.split.problems)) == ["boxes of an unknown class"]
        return
    assert [box.label for box in dataset.split.boxes()] == [0, 0] and dataset.split.problems == ()


def test_ids_that_are_texts_stay_what_they_are(tmp_path):
    images = [{"id": name, "file_name": name + ".jpg", "width": 40, "height": 20} for name in ("007", "a-1")]
    boxes = [GOOD | {"image_id": "a-1"}, GOOD | {"id": 2, "image_id": "007"}]
    dataset = write_coco(tmp_path, {"007.jpg": JPEG, "a-1.jpg": JPEG}, boxes, images=images)
    assert [(image.id, len(image.boxes)) for image in dataset.split.images] == [("007", 1), ("a-1", 1)]
    numbers = write_coco(
        tmp_path, {"1.jpg": JPEG}, [GOOD], images=[{"id": "1", "file_name": "1.jpg", "width": 40, "height": 20}]
    )
    assert [image.id for image in numbers.split.images] == ["1"]  # detections are written with the file's own id


def test_a_box_is_taken_from_its_polygons(tmp_path):
    polygons = [[1, 1, 20, 1, 20, 15], [2.5, 3, 9, 3, 9, 18]]
    dataset = with_annotation(bbox=..., segmentation=polygons)(tmp_path)
    check_dataset(dataset)
    assert [box.xywh for box in dataset.split.boxes()] == [(4, 4, 8, 8), (1, 1, 19, 17)]
    assert [box.area for box in dataset.split.boxes()] == [64, 19 * 17]
    assert "1 boxes without a bbox, taken from the polygons (repaired)" in dataset.split.summary()["notes"][0]


@pytest.mark.parametrize("polygons", [[[1, 1, 2]], [[1, 1, 20, 1, 20]], [["1", 1, 2, 2, 3, 3]], [7], {"counts": "a"}])
def test_a_polygon_that_is_none_is_named(tmp_path, polygons):
    with pytest.raises(ValueError, match=r"annotation 2: bbox .*segmentation"):
        check_dataset(with_annotation(bbox=..., segmentation=polygons)(tmp_path))


@pytest.mark.parametrize("area", [0, 0.0, -5, None])
def test_no_area_of_a_real_box_is_the_box_s_so_that_ap_by_size_is_right(tmp_path, area):
    boxes = [coco_box(1, 1, [0, 0, 36, 18], area=area)]  # 648: small
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, boxes)
    assert [box.area for box in dataset.split.boxes()] == [648]
    assert "1 areas of 0 or less, taken from the box (repaired)" in dataset.split.summary()["notes"][0]
    big = write_coco(tmp_path, {"a.jpg": JPEG}, [coco_box(1, 1, [0, 0, 60, 60], area=area)])
    found = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 60, 60], "score": 1.0}]
    scores = score_detections(big, found)
    assert (scores["APs"], scores["APm"], scores["APl"]) == (None, pytest.approx(100), None)


def test_the_side_that_is_given_must_be_the_file_s(tmp_path):
    with pytest.raises(
        ValueError, match=r"1 of 1 images of another size than annotated.*40 x 20, annotated as 41 x 20"
    ):
        check_dataset(with_image(width=41, height=None)(tmp_path))


def test_no_area_at_all_and_that_of_a_mask_are_not_worth_a_word(tmp_path):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, [GOOD, coco_box(2, 1, [4, 4, 8, 8], area=33.5)])
    assert [box.area for box in dataset.split.boxes()] == [64, 33.5] and dataset.split.summary()["notes"] == []


@pytest.mark.parametrize(("crowd", "expected"), [("0", False), ("1", True), (True, True), (None, False), (0.0, False)])
def test_crowds_however_written(tmp_path, crowd, expected):
    dataset = with_annotation(iscrowd=crowd)(tmp_path)
    assert [box.crowd for box in dataset.split.boxes()] == [False, expected]


def test_boxes_in_fractions_of_the_image_are_named(tmp_path):
    boxes = [coco_box(k, 1, [0.1 * k, 0.2, 0.3, 0.25]) for k in range(1, 4)]
    with pytest.raises(ValueError, match=r"all\.json: 3 of 4 boxes that look normalised .*a\.jpg: \[0\.1, 0\.2, 0\.3"):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, [*boxes, coco_box(4, 1, [4, 4, 8, 8])]))
    tiny = [coco_box(1, 1, [0, 0, 1, 1]), coco_box(2, 1, [4, 4, 8, 8]), coco_box(3, 1, [5, 4, 8, 8])]
    check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, tiny))


def test_corners_in_the_place_of_sizes_are_named(tmp_path):
    over = [coco_box(k, 1, [20 + k, 10, 30 + k, 18]) for k in range(3)]
    with pytest.raises(ValueError, match=r"3 of 4 boxes over the edge: most boxes reach over it \(corners\?\)"):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, [*over, coco_box(4, 1, [4, 4, 8, 8])]))
    # few reach over the edge where objects are small and near the origin; but all are corners
    corners = [coco_box(k, 1, [1, 1, 3 + k, 4]) for k in range(9)] + [coco_box(9, 1, [20, 4, 30, 9])]
    with pytest.raises(
        ValueError, match="1 of 10 boxes over the edge where all can be corners instead of sizes, such as annotation 9"
    ):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, corners))
    corners[0]["bbox"] = [9, 1, 3, 4]  # one that cannot be: a slip of one box, which is cut
    check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, corners))


@pytest.mark.parametrize("name", [None, "", " ", ["cat"], 1.5, True, ...])
def test_a_category_without_a_name_is_named(tmp_path, name):
    category = {"id": 0} if name is ... else {"id": 0, "name": name}
    with pytest.raises(ValueError, match=r"a category needs an integer `id` and a `name`: name"):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, categories=[category]))


def test_a_category_whose_name_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"all.json: a category needs an integer `id` and a `name`: 'utf-8'"):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, categories=[{"id": 0, "name": "cat\ud800"}]))


@pytest.mark.parametrize("number", [None, [0], 0.5, "zero", True, ...])
def test_a_category_without_a_number_is_named(tmp_path, number):
    category = {"name": "cat"} if number is ... else {"id": number, "name": "cat"}
    with pytest.raises(ValueError, match=r"a category needs an integer `id` and a `name`: id"):
        check_dataset(write_coco(tmp_path, {"a.jpg": JPEG}, categories=[category]))


def test_an_empty_category_that_repeats_a_name_is_left_out_with_a_note(tmp_path):
    categories = [{"id": 0, "name": "thing"}, {"id": 5, "name": "thing", "supercategory": "none"}]
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, [GOOD], categories=categories)
    assert dataset.split.classes == ("thing",) and dataset.split.category_ids == (0,)
    assert "category 5 repeats the name 'thing' and has no box: left out" in dataset.split.summary()["notes"][0]
    both = [GOOD, GOOD | {"id": 2, "category_id": 5}]
    with pytest.raises(ValueError, match="category 'thing' is there twice"):
        _ = write_coco(tmp_path, {"a.jpg": JPEG}, both, categories=categories).split


def test_an_annotation_with_id_0_can_be_found(tmp_path):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG}, [coco_box(0, 1, [4, 4, 8, 8])])
    found = [{"image_id": 1, "category_id": 0, "bbox": [4, 4, 8, 8], "score": 1.0}]
    assert score_detections(dataset, found)["AP"] == pytest.approx(100)  # pycocotools: 0, it takes id 0 for no match


def test_a_byte_order_mark_is_read_over_and_a_list_is_refused(tmp_path):
    dataset = write_coco(tmp_path, {"a.jpg": JPEG})
    dataset.annotations.write_bytes(b"\xef\xbb\xbf" + dataset.annotations.read_bytes())
    check_dataset(CocoDataset(dataset.annotations, tmp_path))
    dataset.annotations.write_text(json.dumps([GOOD]))
    with pytest.raises(ValueError, match="a JSON object, this is a list"):
        check_dataset(CocoDataset(dataset.annotations, tmp_path))
