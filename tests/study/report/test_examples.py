"""The images on which routes do best, worst and most unlike the unpruned one: of four generated scenes."""

import gzip
import json

import pytest
from support.fabricated_study import a_comparison, a_row, a_step, fabricate, with_grid

from detect.data.open import open_for
from detect.evaluate import DETECTIONS
from study.report import examples, gallery
from study.report.examples import extreme
from study.report.material import Material
from study.report.rows import Comparison, StageResult
from study.report.write import write_report

CLASSES = tuple(map(str, range(10)))
DATA = {
    "digits": {
        **{"image_size": 64, "train": 2, "val": 1, "test": 4, "seed": 0},
        **{"digits_per_scene": [2, 2], "digit_size": [20, 24]},
    }
}
FALSE = {"bbox": [0.0, 0.0, 4.0, 4.0], "score": 0.9}


@pytest.fixture
def split(tmp_path):
    return open_for(CLASSES, DATA, tmp_path / "data").split


def study(runs, split, found):
    """A comparison of one seed; `found`: route -> of each image how many of its two boxes, and false alarms."""
    rows, stages = [], {}
    for name, counts in found.items():
        run = f"evaluate-{name}/seed0"
        detections = []
        for image, (right, wrong) in zip(split.images, counts, strict=True):
            of = {"image_id": image.id, "category_id": split.category_ids[0]}
            for box in image.boxes[:right]:
                mine = {"category_id": split.category_ids[box.label], "bbox": list(box.xywh), "score": 0.8}
                detections.append(of | mine)
            detections += [of | FALSE] * wrong + [of | FALSE | {"score": 0.4}] * 3  # the last are not counted
        (runs / run).mkdir(parents=True)
        (runs / run / DETECTIONS).write_bytes(gzip.compress(json.dumps(detections).encode()))
        result = {"settings": {"data": DATA}, "per_class": dict.fromkeys(CLASSES, 50.0)}
        stages[run] = StageResult("evaluate", "evaluate", result | {"data": {"fingerprint": split.fingerprint()}})
        rows.append(a_row(name, 0, [a_step("evaluate", run)], AP=50.0))
    return a_comparison(rows, stages)


FOUND = {
    "unpruned": [(2, 0), (2, 0), (1, 0), (0, 0)],  # F1 1, 1, 2/3, 0
    "scratch_e": [(0, 1), (2, 2), (2, 0), (0, 0)],  # F1 0, 2/3, 1, 0
}


def test_images_are_chosen_by_f1_and_of_equals_by_id(tmp_path, split):
    found = examples.examples(Material.of(study(tmp_path, split, FOUND), tmp_path))
    ids = [image.id for image in split.images]
    assert ids == sorted(ids) and found.gaps == () and found.left_out == 0
    told = [(e.title, e.words, [(s.route, s.words) for s in e.shown]) for e in found.examples]
    nothing = "F1 0.00: 0 found, 2 missed, 0 false alarms"
    assert told == [
        (
            "unpruned: best",
            f"image {ids[0]}, one of 2 with this F1, of 4 images",
            [("unpruned", "F1 1.00: 2 found, 0 missed, 0 false alarms")],
        ),
        ("unpruned: worst", f"image {ids[3]}, no other has this F1, of 4 images", [("unpruned", nothing)]),
        (
            "scratch_e: best",
            f"image {ids[2]}, no other has this F1, of 4 images",
            [("scratch_e", "F1 1.00: 2 found, 0 missed, 0 false alarms")],
        ),
        (
            "scratch_e: worst",
            f"image {ids[0]}, one of 2 with this F1, of 4 images",
            [("scratch_e", "F1 0.00: 0 found, 2 missed, 1 false alarm")],
        ),
        (
            "scratch_e against unpruned: furthest apart",
            f"image {ids[0]}, F1 −1.00",
            [
                ("unpruned", "F1 1.00: 2 found, 0 missed, 0 false alarms"),
                ("scratch_e", "F1 0.00: 0 found, 2 missed, 1 false alarm"),
            ],
        ),
    ]
    assert all(s.uri.startswith("data:image/webp;base64,") for e in found.examples for s in e.shown)
    assert "for seed 0; of equals the one with the lowest id" in found.rule and "they do not measure it" in found.rule


def test_the_page_shows_them_with_their_numbers(tmp_path, split, monkeypatch):
    monkeypatch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")
    page = write_report(study(tmp_path, split, FOUND), tmp_path, tmp_path / "study").read_text()
    section = page.partition('id="examples"')[2].partition("</section>")[0]
    assert section.count("<img") == 6 and section.count('class="example pair"') == 1
    assert "scratch_e, F1 0.00: 0 found, 2 missed, 1 false alarm" in section


def test_alike_routes_are_not_apart_and_alike_images_are_shown_once(tmp_path, split):
    alike = dict.fromkeys(FOUND, [(1, 0)] * 4)
    found = examples.examples(Material.of(study(tmp_path, split, alike), tmp_path))
    assert [e.title for e in found.examples] == ["unpruned: best", "scratch_e: best"]


def test_images_without_a_box_are_not_chosen(split):
    assert extreme([None, 0.0, 0.5, None], split) == 2
    assert extreme([None, -0.5, -0.5, None], split) == 1
    assert extreme([None] * 4, split) is None


def test_detections_of_runs_from_before_they_were_packed_are_read_too(tmp_path, split):
    made = study(tmp_path, split, FOUND)
    packed = examples.examples(Material.of(made, tmp_path))
    for file in tmp_path.glob(f"*/*/{DETECTIONS}"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert packed.examples and examples.examples(Material.of(made, tmp_path)) == packed


@pytest.mark.parametrize("content", [b"[]", gzip.compress(b"[1"), gzip.compress(b"[]")[:-9]])
def test_detections_that_are_damaged_are_said(tmp_path, split, content):
    made = study(tmp_path, split, FOUND)
    (tmp_path / "evaluate-scratch_e/seed0" / DETECTIONS).write_bytes(content)
    (gap,) = examples.examples(Material.of(made, tmp_path)).gaps
    assert gap.startswith(f"evaluate-scratch_e/seed0/{DETECTIONS}: ")


def test_what_is_not_there_is_said(tmp_path, split):
    made = study(tmp_path, split, FOUND)
    (tmp_path / "evaluate-scratch_e/seed0" / DETECTIONS).write_bytes(gzip.compress(b'[{"image_id": 1}]'))
    found = examples.examples(Material.of(made, tmp_path))
    assert {e.route for e in found.examples} == {"unpruned"}
    assert found.gaps == ("evaluate-scratch_e/seed0/detections.json.gz: not detections in COCO's result format",)
    for stage in made.stages.values():
        stage.result["data"]["fingerprint"] = "of other images"
    found = examples.examples(Material.of(made, tmp_path))
    assert found.examples == () and "not the images and boxes of the evaluations" in found.gaps[0]
    assert len(found.gaps) == 1


def test_a_page_stays_small(tmp_path, split, monkeypatch):
    material = Material.of(study(tmp_path, split, FOUND), tmp_path)
    first = sum(len(s.uri) for e in examples.examples(material).examples[:2] for s in e.shown)
    monkeypatch.setattr(examples, "MAX_BYTES", first + 1)
    found = examples.examples(material)
    assert (len(found.examples), found.left_out) == (2, 1)


def test_a_gallery_has_as_many_scenes_as_there_is_room_for(tmp_path, monkeypatch):
    material = Material.of(Comparison.from_json(fabricate(tmp_path)), tmp_path)
    (whole,) = gallery.galleries(material)
    row = max(sum(map(len, row)) for row in whole.rows)
    monkeypatch.setattr(gallery, "MAX_BYTES", 2 * row)
    (some,) = gallery.galleries(material)
    assert (len(whole.rows), whole.left_out) == (4, 0) and (len(some.rows), some.left_out) == (2, 2)
    monkeypatch.setattr(gallery, "MAX_BYTES", 10)
    (none,) = gallery.galleries(material)
    assert (none.rows, none.left_out) == ((), 4)


def test_where_no_scene_is_drawn_one_gallery_says_so_for_all_points(tmp_path):
    """As with `evaluate.scenes: 0`."""
    made = with_grid(fabricate(tmp_path))
    assert len(gallery.galleries(Material.of(Comparison.from_json(made), tmp_path))) == 2
    material = Material.of(Comparison.from_json(made), tmp_path)
    for picture in tmp_path.glob("evaluate-*/seed*/detections/*.png"):
        picture.unlink()
    (found,) = gallery.galleries(material)
    assert (found.place, found.rows, found.left_out) == ("", (), 0)
    assert found.gaps == ("No evaluation stage has drawn its detections.",)
