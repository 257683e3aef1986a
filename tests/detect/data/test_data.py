"""COCO data: checks before training, and a stream that depends on (seed, position) alone."""

import itertools
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from detect.data import CocoDataset, check_dataset, class_names, loader
from detect.data.loader import _Kept, train_loader
from detect.data.loader import test_loader as every_image_once
from detect.data.stream import PositionSampler, TrainStream, seeded_rng
from detect.detector_config import make_config
from detect.settings import DetectorSettings
from training.seeding import seed_generators


@pytest.fixture
def dataset(tmp_path):
    """Five images, 40 wide and 20 or 60 high, one box each; image i is filled with 10 * i."""
    images = []
    for i in range(5):
        height = 20 if i % 2 else 60
        Image.fromarray(np.full((height, 40, 3), 10 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": 40})
    coco = {
        "images": images,
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1 + i % 2, "bbox": [4, 4, 8, 8], "area": 64, "iscrowd": 0}
            for i in range(5)
        ],
        "categories": [{"id": 2, "name": "b"}, {"id": 1, "name": "a"}],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(coco))
    return CocoDataset(path, tmp_path)


def _edit(dataset, **changes):
    coco = json.loads(dataset.annotations.read_text())
    dataset.annotations.write_text(json.dumps(coco | changes))


def test_a_sound_data_set_passes(dataset):
    check_dataset(dataset)
    assert class_names(dataset) == ["a", "b"]


def test_missing_images_are_counted(dataset):
    for i in (1, 3):
        (dataset.images / f"{i}.png").unlink()
    with pytest.raises(ValueError, match=r"train\.json: 2 of 5 images missing, such as .*1\.png"):
        check_dataset(dataset)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_empty_lists_are_refused(dataset, key):
    _edit(dataset, **{key: []})
    with pytest.raises(ValueError, match=rf"train\.json: the list '{key}' is missing or empty"):
        check_dataset(dataset)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_what_should_be_a_list_is_refused_with_its_type(dataset, key):
    _edit(dataset, **{key: {"1": "a"}})
    with pytest.raises(ValueError, match=rf"train\.json: '{key}' is of type dict, a list is expected"):
        check_dataset(dataset)


def test_annotations_of_unlisted_images_are_refused(dataset):
    stray = {"id": 9, "image_id": 77, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}
    _edit(dataset, annotations=[stray])
    with pytest.raises(ValueError, match="1 of 1 annotations of images that are not listed, such as annotation 9"):
        check_dataset(dataset)


@pytest.mark.parametrize("damage", [lambda b: b[:60], lambda b: b[:45] + b"\0" * 12 + b[57:], lambda b: b""])
def test_a_corrupt_image_is_named(dataset, damage):
    path = dataset.images / "2.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"1 of 5 images not readable, such as .*2\.png: "):
        check_dataset(dataset)


def test_json_that_is_none_is_refused(dataset):
    dataset.annotations.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"train\.json: not valid JSON"):
        check_dataset(dataset)
    dataset.annotations.write_text("[]")
    with pytest.raises(ValueError, match="a JSON object, this is a list"):
        check_dataset(dataset)
    dataset.annotations.unlink()
    with pytest.raises(ValueError, match=r"train\.json: cannot be read: No such file"):
        check_dataset(dataset)


def _stream(n=7, seed=0, grouped=False, **arguments):
    records = [{"width": 40, "height": 20 if i % 3 else 60, "id": i} for i in range(n)]
    if grouped:
        arguments["landscape"] = np.array([record["width"] > record["height"] for record in records])
    return TrainStream(records, lambda record: (record["id"], random.random()), seed=seed, **arguments)


def test_every_epoch_is_a_permutation_and_epochs_differ():
    stream = _stream()
    epochs = [[stream.index(7 * e + i) for i in range(7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [_stream(seed=1).index(i) for i in range(7)] != epochs[0]


def test_a_record_depends_on_its_position_alone():
    forward = [_stream()[p] for p in range(20)]
    stream = _stream()
    backward = [stream[p] for p in reversed(range(20))]
    assert backward[::-1] == forward
    assert len({value for _, value in forward}) == 20


def test_grouping_puts_one_orientation_in_each_batch():
    stream = _stream(n=12, batch_size=4, grouped=True)  # 8 landscape, 4 portrait
    landscape = [stream.landscape[stream.index(p)] for p in range(24)]
    batches = [set(landscape[i : i + 4]) for i in range(0, 24, 4)]
    assert all(len(batch) == 1 for batch in batches)
    assert sorted(stream.index(p) for p in range(12)) == list(range(12))
    ragged = _stream(n=7, batch_size=4, grouped=True)  # 4 landscape, 3 portrait: one batch an epoch
    assert len(ragged) == 4
    with pytest.raises(ValueError, match="3 images do not fill one batch of 4"):
        _stream(n=3, batch_size=4, grouped=True)


def test_positions_are_shared_out_between_processes(monkeypatch):
    monkeypatch.setattr("detect.data.stream.comm.get_world_size", lambda: 2)
    taken = []
    for rank in (0, 1):
        monkeypatch.setattr("detect.data.stream.comm.get_rank", lambda rank=rank: rank)
        taken.append(list(itertools.islice(PositionSampler(6), 3)))
    assert taken == [[6, 8, 10], [7, 9, 11]]


def test_seeded_block_leaves_no_trace():
    seed_generators(5, 0)
    expected = random.random(), np.random.rand(), torch.rand(1)
    seed_generators(5, 0)
    with seeded_rng(3, 1):
        inside = random.random(), np.random.rand(), torch.rand(1)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected != inside


def _ids(loader, batches):
    return [[record["image_id"] for record in batch] for batch in itertools.islice(loader, batches)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_starts_later_continues_the_same_stream(dataset, num_workers):
    cfg = make_config(DetectorSettings(image_size=32), num_classes=2)
    arguments = {"batch_size": 2, "seed": 0, "flip": True, "num_workers": num_workers}
    whole = list(itertools.islice(train_loader(dataset, cfg, **arguments), 6))
    rest = list(itertools.islice(train_loader(dataset, cfg, start_iteration=4, **arguments), 2))
    for a, b in zip(itertools.chain(*whole[4:]), itertools.chain(*rest), strict=True):
        assert a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    flipped = {float(r["instances"].gt_boxes.tensor[0, 0]) > r["image"].shape[-1] / 2 for batch in whole for r in batch}
    assert flipped == {True, False}
    assert sorted(r["image_id"] for batch in whole for r in batch)[:2] == [0, 0]


def test_images_are_resized_rgb_and_unflipped_unless_asked(dataset):
    cfg = make_config(DetectorSettings(image_size=32, max_image_size=1000), num_classes=2)
    batch = next(iter(train_loader(dataset, cfg, batch_size=5, seed=0)))
    for record in batch:
        assert min(record["image"].shape[1:]) == 32
        assert (record["image"] == 10 * record["image_id"]).all()
        scale = 32 / min(40, record["height"])
        assert record["instances"].gt_boxes.tensor[0, 0].item() == pytest.approx(4 * scale)


def _shown(dataset, cfg, n=40):
    """Image and boxes of the first positions of the stream, by image, upright and mirrored."""
    stream = train_loader(dataset, cfg, batch_size=1, seed=0, flip=True)
    batches = [batch[0] for batch in itertools.islice(stream, n)]
    return [(b["image"], b["instances"].gt_boxes.tensor, b["instances"].gt_classes) for b in batches]


def test_what_is_kept_of_an_image_is_what_reading_it_gives(dataset, monkeypatch):
    cfg = make_config(DetectorSettings(image_size=10, max_image_size=40), num_classes=2)
    kept = _Kept()
    monkeypatch.setattr(loader, "_kept", kept)
    first, again = _shown(dataset, cfg), _shown(dataset, cfg)
    assert len(kept.mapped) == 10  # five images, each of two ways round
    monkeypatch.setattr(loader, "_kept", _Kept(free=0))
    for shown in zip(first, again, _shown(dataset, cfg), strict=True):
        for a, b, c in zip(*shown, strict=True):
            assert torch.equal(a, b) and torch.equal(a, c)
    assert not loader._kept.mapped


def test_of_a_data_set_of_which_little_has_room_nothing_is_kept(dataset, monkeypatch):
    cfg = make_config(DetectorSettings(image_size=10, max_image_size=40), num_classes=2)
    epoch = 5 * 3 * 13 * 14  # bytes: three pictures of 15 x 10 pixels and two of 10 x 20
    for room, expected in ((epoch // 10, 10), (epoch // 10 - 1, 0)):
        kept = _Kept()
        monkeypatch.setattr(loader, "_kept", kept)
        monkeypatch.setattr(loader, "_ROOM", room)
        _shown(dataset, cfg)
        assert len(kept.mapped) == expected


def test_an_image_that_changed_is_read_again(dataset):
    cfg = make_config(DetectorSettings(image_size=10, max_image_size=40), num_classes=2)
    _shown(dataset, cfg)
    for i in range(5):
        Image.fromarray(np.full((20 if i % 2 else 60, 40, 3), 200, dtype=np.uint8)).save(dataset.images / f"{i}.png")
    assert all((image == 200).all() for image, *_ in _shown(dataset, cfg))


def test_evaluation_sees_every_image_once_in_order(dataset):
    cfg = make_config(DetectorSettings(image_size=32), num_classes=2)
    assert _ids(every_image_once(dataset, cfg), 9) == [[0], [1], [2], [3], [4]]
