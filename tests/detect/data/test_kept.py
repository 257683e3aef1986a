"""What was read of a COCO file, kept for other processes: the same to the bit, made once, made anew where damaged."""

import gc
import hashlib
import json
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.coco_layout import coco_box, encoded, picture, write_coco

from detect.data import CocoDataset, MatchedDataset, check_dataset, coco
from detect.data.draw import Carved
from detect.data.images import UNKNOWN, ImageRecord, Images, Table
from detect.data.kept import Kept, kept
from detect.data.open import detection_data, open_detection
from detect.data.outlines import read_outlines
from detect.settings import DetectorData
from study.stages.contents import Contents
from training.files import PARTIAL
from training.remembered import keys_of
from training.texts import to_bytes

IDS = ["7", 3.0, 12]
BOXES = [
    coco_box(1, 12, [4, 4.5, 8, 8], area=33, iscrowd=1),
    coco_box(2, 3, [4, 4, 8, 8.0], segmentation=[[1, 1, 9.5, 1, 9, 9]]),
    coco_box(3, 7, [-0.5, 4, 12, 5], category_id=7, area=0, segmentation={"size": [20, 40], "counts": [100, 50, 650]}),
    coco_box(4, 12, None, segmentation=[[1, 1, 9.5, 1, 9, 9]]),
    coco_box(5, 12, [4, 4, 0, 8]),
    coco_box(6, 9, [4, 4, 8, 8]),
]


@pytest.fixture
def files(tmp_path):
    """A JSON with something of everything, and a folder for what is kept."""
    contents = {name: encoded(picture(k), "PNG") for k, name in enumerate(("a.png", "b.png", "ü.png"))}
    images = [{"id": k, "file_name": n, "width": 40, "height": 20} for k, n in zip(IDS, contents, strict=True)]
    categories = [{"id": 0, "name": "thing"}, {"id": 7, "name": "other"}, {"id": 9, "name": "thing"}]
    write_coco(tmp_path / "data", contents, BOXES, images=images, categories=categories)
    return tmp_path / "data" / "all.json", tmp_path / "data", tmp_path / "runs" / "coco"


@pytest.fixture
def parsed_once(monkeypatch):
    """Names every file that is parsed."""
    parsed, read = [], coco.read_json
    monkeypatch.setattr(coco, "read_json", lambda path, *each: parsed.append(path) or read(path, *each))
    return parsed


def said(split):
    """All that a split says, types of numbers included."""
    images = [
        (image.id, image.file, image.height, image.width, [(box, box.number) for box in image.boxes])
        for image in split.images
    ]
    return repr(
        (split.classes, split.category_ids, split.problems, split.notes, images, split.summary(), split.truth())
    )


def test_what_is_kept_is_what_the_file_says(files, parsed_once):
    plain = CocoDataset(*files[:2]).split
    first, second = (CocoDataset(*files).split for _ in range(2))
    assert said(first) == said(second) == said(plain) and len(parsed_once) == 2
    assert [image.id for image in plain.images] == [3.0, "7", 12] and plain.category_ids == (0, 7)
    assert plain.images[2].file == files[1] / "ü.png" and "category 9 repeats the name 'thing'" in plain.notes[0]
    assert list(second.records(filter_empty=True)) == list(plain.records(filter_empty=True))
    assert [problem.kind for problem in plain.problems] == [problem.kind for problem in second.problems] != []


def test_of_a_matched_or_divided_data_set_it_is_the_same(files):
    def sides(*place):
        whole = MatchedDataset(CocoDataset(*place), CocoDataset(*place), "train")
        return [said(Carved(whole, 0.4, 1, side).split) for side in ("train", "val")] + [said(whole.split)]

    assert sides(*files[:2]) == sides(*files) == sides(*files)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        lambda content: content.replace(b"thing", b"thong", 1),
        lambda content: b"{}" + content,
    ],
)
def test_a_damaged_file_is_made_anew(files, damage, parsed_once):
    before = said(CocoDataset(*files).split)
    (file,) = files[2].glob("*.arrays")
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert said(CocoDataset(*files).split) == before and len(parsed_once) == 2
    assert file.read_bytes() == content


def test_the_file_of_another_is_made_anew(files, tmp_path):
    other = write_coco(tmp_path / "other", {"c.png": encoded(picture(), "PNG")})
    foreign = CocoDataset(other.annotations, other.images, tmp_path / "theirs").split
    before = said(CocoDataset(*files).split)
    (mine,), (theirs,) = files[2].glob("*.arrays"), (tmp_path / "theirs").glob("*.arrays")
    mine.write_bytes(theirs.read_bytes())
    assert said(CocoDataset(*files).split) == before != said(foreign)


def test_a_file_that_changes_is_another_and_one_that_moves_is_the_same(files, tmp_path, parsed_once):
    before = CocoDataset(*files).split
    (files[1]).rename(tmp_path / "moved")
    moved = CocoDataset(tmp_path / "moved" / "all.json", tmp_path / "moved", files[2]).split
    assert len(parsed_once) == 1 and moved.fingerprint() == before.fingerprint()
    assert moved.images[0].file.parent == tmp_path / "moved" and str(tmp_path / "moved") in moved.notes[0]
    content = json.loads((tmp_path / "moved" / "all.json").read_text())
    content["annotations"][0]["bbox"][0] = 5
    (tmp_path / "moved" / "all.json").write_text(json.dumps(content))
    changed = CocoDataset(tmp_path / "moved" / "all.json", tmp_path / "moved", files[2]).split
    assert len(parsed_once) == 2 and changed.fingerprint() != before.fingerprint()


def test_sizes_that_pictures_have_are_not_kept(files):
    content = json.loads(files[0].read_text())
    del content["images"][0]["width"]
    files[0].write_text(json.dumps(content))
    for size in ((40, 20), (30, 20)):
        picture(size=size).save(files[1] / "a.png")
        split = CocoDataset(*files).split
        assert split.images[1].width == size[0] and split.kept is None


def test_what_is_refused_is_refused_each_time(files):
    files[0].write_text(files[0].read_text().replace('"bbox": [4, 4, 8, 8.0]', '"bbox": [4, 4, -8, 8.0]'))
    texts = []
    for place in (files[:2], files, files):
        with pytest.raises(ValueError, match="1 of 6 boxes inverted") as error:
            check_dataset(CocoDataset(*place))
        texts.append(str(error.value))
    assert texts[0] == texts[1] == texts[2]
    files[0].write_text('{"images": [')
    for _ in range(2):
        with pytest.raises(ValueError, match=r"all\.json: not valid JSON"):
            check_dataset(CocoDataset(*files))


def test_outlines_are_kept_too(files, parsed_once, monkeypatch):
    monkeypatch.setattr("detect.data.outlines.read_json", coco.read_json)

    def found(*place, **how):
        split = CocoDataset(*place).split
        return repr(list(read_outlines(split, np.isin(split.images.of_box("number"), (1, 2, 3)), **how).items()))

    for how in ({}, {"encoded": True}):
        assert found(*files[:2], **how) == found(*files, **how) == found(*files, **how)
    assert len(parsed_once) == 2 * 2 + 2  # of each kind of outline the plain way, and once of what is kept
    texts = []
    for place in (files[:2], files, files):
        with pytest.raises(ValueError, match="such as annotation 5: segmentation") as error:
            split = CocoDataset(*place).split
            read_outlines(split, split.images.of_box("number") > 0)
        texts.append(str(error.value))
    assert texts[0] == texts[1] == texts[2]


def test_outlines_take_no_room_while_a_file_is_read(files):
    """As lists they would take five times the room of their text, which is there as bytes and as letters."""
    content = json.loads(files[0].read_text())
    outline = [[x + 0.25 for x in range(2000)]]
    content["annotations"] = [coco_box(k, 12, [4, 4, 8, 8], segmentation=outline) for k in range(1, 101)]
    files[0].write_text(json.dumps(content))
    size = files[0].stat().st_size
    tracemalloc.start()
    try:
        split = coco.read_coco(*files[:2])
        assert tracemalloc.get_traced_memory()[1] < 2.5 * size
        tracemalloc.reset_peak()
        read_outlines(split)
        assert tracemalloc.get_traced_memory()[1] < 4.5 * size
    finally:
        tracemalloc.stop()


def test_what_reading_took_is_given_back_once_a_file_is_read(files, parsed_once, monkeypatch):
    monkeypatch.setattr("detect.data.kept.give_back_freed_memory", lambda: parsed_once.append("given back"))
    for _ in range(2):
        read_outlines(CocoDataset(*files).split, np.zeros(5, dtype=bool))
    assert parsed_once == [files[0], "given back", "given back"]  # of outlines too, which this does not see read


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_collected_after_as_before(files, collecting):
    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        coco.read_coco(*files[:2])
        files[0].write_text("[]")
        with pytest.raises(ValueError, match="this is a list"):
            coco.read_coco(*files[:2])
        assert gc.isenabled() is collecting
    finally:
        gc.enable() if before else gc.disable()


def test_where_nothing_can_be_written_each_process_reads(files, tmp_path, parsed_once):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert said(CocoDataset(*files[:2], place).split) == said(CocoDataset(*files[:2]).split)
    assert len(parsed_once) == 4


def test_of_several_at_once_one_makes_it(tmp_path):
    made = []

    def make():
        made.append(1)
        time.sleep(0.2)
        return Kept({"n": 1}, {"some": np.arange(9, dtype=np.uint8), "none": np.empty(0, np.uint8)}), True

    found = []
    threads = [threading.Thread(target=lambda: found.append(kept(tmp_path, "key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] and [one.arrays["some"].tolist() for one in found] == [list(range(9))] * 4
    assert found[0].arrays["none"].size == 0 and found[0].about == {"n": 1}
    with pytest.raises(ValueError, match="read-only"):
        found[0].arrays["some"][0] = 1


def test_what_a_killed_process_was_writing_is_removed_by_the_next_that_writes(tmp_path):
    def make():
        return Kept({}, {"some": np.arange(9, dtype=np.uint8)}), True

    kept(tmp_path, "key", make)
    (file,) = tmp_path.glob("*.arrays")
    file.unlink()
    left = file.with_name(f".{file.name}.0123{PARTIAL}")
    left.write_bytes(b"half")
    kept(tmp_path, "key", make)
    assert file.is_file() and not left.exists()


def test_a_study_keeps_it_beside_its_generated_data(files, tmp_path, monkeypatch):
    sides = {side: {"annotations": files[0], "images": files[1]} for side in ("train", "test")}
    settings = DetectorData.model_validate({"coco": sides, "allow_shared": True})
    data = detection_data(settings)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    known = Contents().detection(settings)
    assert open_detection(data, "test", None).split.kept is None and sorted(tmp_path.rglob("*")) == before
    assert Contents(tmp_path / "runs").detection(settings) == known
    assert open_detection(data, "test", tmp_path / "runs" / "data").split.kept == tmp_path / "runs" / "data" / "coco"
    assert len(list((tmp_path / "runs" / "data" / "coco").glob("*.arrays"))) == 1


def test_the_format_has_a_number(files):
    """Where this fails because reading gives something else than before: raise coco._FORMAT, and take the new sum."""
    split = CocoDataset(*files).split
    arrays = split.images.table
    found = repr((coco._FORMAT, split.classes, split.problems, arrays.images.tolist(), arrays.boxes.tolist()))
    assert hashlib.sha256(found.encode()).hexdigest()[:12] == "b167db5baed5"


def test_images_are_a_sequence(files):
    images = CocoDataset(*files[:2]).split.images
    assert [image.id for image in images[1:]] == ["7", 12] and images[-1].id == 12 and len(images[:0]) == 0
    assert images == Images.of(images) and images != images[1:]
    with pytest.raises(IndexError):
        images[3]
    turned = images.relabelled([1, UNKNOWN]).relabelled([0, 5])
    assert turned.labels.tolist() == [{0: 5, 1: UNKNOWN, UNKNOWN: UNKNOWN}[label] for label in images.labels.tolist()]
    for name in ("trainable", "to_find"):
        assert getattr(images, name).tolist() == [getattr(box, name) for image in images for box in image.boxes]
    assert images.take(np.array([2, 0])).of_box("number").tolist() == [0, 3, 4, 1]
    boxes = images[2].boxes
    assert boxes == tuple(boxes) and boxes[1] == list(boxes)[1] and repr(boxes) == repr(tuple(boxes))
    assert Path(images[0].file).name == "b.png"


@pytest.mark.parametrize("folder", [Path(), Path("/"), Path("some/where"), Path("/else/where"), Path("..")])
@pytest.mark.parametrize("names", [["a.png", "below/ü.png", "/whole/b.png"], []])
def test_names_of_files_are_those_of_the_images(folder, names):
    records = [ImageRecord(k, Path(name), 2, 2, ()) for k, name in enumerate(names)]
    images = Images.all_of(Table.of(records), folder)
    for some in (images, images.take(np.arange(len(names))[::-1]), images[1:]):
        assert some.files == [str(image.file) for image in some]
    assert list(keys_of(images.files)) == list(keys_of(image.file for image in images))
    assert list(keys_of(images.files)) == [to_bytes(str(Path.cwd() / image.file)) for image in images]
