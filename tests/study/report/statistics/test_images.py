"""The bootstrap over images against pycocotools on drawn data sets, closed forms, and what pairing must do."""

from dataclasses import replace

import numpy as np
import pytest
from support.by_pycocotools import by_pycocotools
from support.scenes_and_guesses import guesses, scenes

from detect.coco_evaluation import coco_evaluation
from detect.data.images import Images
from detect.matches import coco_matches
from detect.voc_metrics import VOC_METRICS, voc_matches, voc_metrics
from study.report.statistics import images
from study.report.statistics.images import (
    VOC07_RECALLS,
    Variance,
    accuracies,
    average_precisions,
    draw_images,
    image_noise,
    split_variance,
)


def _matches(split, detections):
    return coco_matches(coco_evaluation(split, detections, "bbox"))


def _drawn(split, detections, counts):
    """The data set in which each image occurs as often as it was drawn, under a new id."""
    of = {image.id: [d for d in detections if d["image_id"] == image.id] for image in split.images}
    chosen = [image for image, count in zip(split.images, counts, strict=True) for _ in range(int(count))]
    records = Images.of(replace(image, id=k) for k, image in enumerate(chosen))
    found = [{**d, "image_id": k} for k, image in enumerate(chosen) for d in of[image.id]]
    return replace(split, images=records), found


@pytest.mark.parametrize("case", [{}, {"shift": 0.0, "levels": 5}], ids=["scores apart", "boxes alike"])
def test_a_draw_is_what_pycocotools_finds_in_the_drawn_data_set(case):
    split = scenes(30)
    detections = guesses(split, **case)
    if case:  # copies of one image may stand in another order among equal scores than whole detections do
        detections = [{**d, "score": d["score"] + d["image_id"] * 1e-6 + k * 1e-9} for k, d in enumerate(detections)]
    counts = draw_images(30, 12, seed=3)
    found = average_precisions([_matches(split, detections)], counts)
    for b in range(12):
        reference = by_pycocotools(*_drawn(split, detections, counts[:, b]))
        precision = reference.eval["precision"][:, :, :, 0, -1]
        assert (precision > -1).all()
        np.testing.assert_allclose(found.by_iou[0, b], 100 * precision.mean(axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(found.by_class[0, b], 100 * precision.mean(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(found.ap[0, b], 100 * precision.mean(), rtol=1e-12)


def test_a_draw_has_vocs_metrics_too():
    split = scenes(30, voc_year=2007)
    detections = guesses(split)
    detections = [{**d, "score": k / 999} for k, d in enumerate(detections)]  # VOC reads three decimals
    counts = draw_images(30, 12, seed=4)
    kept = voc_matches(split, detections)
    for metric, recalls in zip(VOC_METRICS, (VOC07_RECALLS, None), strict=True):
        found = average_precisions([kept], counts, recalls)
        for b in range(12):
            reference = voc_metrics(voc_matches(*_drawn(split, detections, counts[:, b])))
            np.testing.assert_allclose(found.ap[0, b], reference[metric], rtol=1e-12)
            by_class = list(reference["voc_per_class"][metric].values())
            np.testing.assert_allclose(found.by_class[0, b], by_class, rtol=1e-12)


def test_equal_scores_in_one_image_are_taken_detection_by_detection():
    """Copies of an image have a wrong and a right detection of equal score: both wrong ones come first.

    One image, drawn twice: precision 2/4. pycocotools takes the copies one after the other, 1/2 and then 2/4.
    """
    split = scenes(1, special=0.0)
    (image,) = split.images
    (box, *_) = image.boxes
    split = replace(split, images=Images.of([replace(image, boxes=(box,))]))
    category = split.category_ids[box.label]
    wrong = {"image_id": 0, "category_id": category, "bbox": [0.0, 0.0, 2.0, 2.0], "score": 0.5}
    found = average_precisions([_matches(split, [wrong, {**wrong, "bbox": list(box.xywh)}])], np.full((1, 1), 2.0))
    assert found.ap[0, 0] == pytest.approx(50.0)


def test_a_class_without_a_box_in_the_draw_is_left_out_of_it():
    split = scenes(9, special=0.0)
    first, second, last = [image for image in split.images if image.boxes][:3]
    chosen = ((first, 0), (second, 0), (last, 1))
    split = replace(
        split,
        images=Images.of(
            replace(image, id=k, boxes=tuple(replace(box, label=label) for box in image.boxes))
            for k, (image, label) in enumerate(chosen)
        ),
    )
    detections = [
        {"image_id": i.id, "category_id": split.category_ids[b.label], "bbox": list(b.xywh), "score": 0.9}
        for i in split.images
        for b in i.boxes[:1]
    ]
    counts = np.array([[1, 0], [2, 0], [0, 3]], dtype=np.float32)
    found = average_precisions([_matches(split, detections)], counts)  # classes by id: 3, 7, 9 are labels 1, 2, 0
    assert np.isnan(found.by_class[0]).tolist() == [[True, True, False], [False, True, True]]
    assert found.ap[0] == pytest.approx([found.by_class[0, 0, 2], found.by_class[0, 1, 0]])


def test_without_detections_every_draw_is_0_and_other_images_are_refused():
    split = scenes(8)
    nothing = _matches(split, [{"image_id": 0, "category_id": 9, "bbox": [0.0, 0.0, 0.0, 0.0], "score": 0.0}])
    assert set(average_precisions([nothing], draw_images(8, 5)).ap[0]) == {0.0}
    other = scenes(8, seed=1)
    with pytest.raises(ValueError, match="not of the same images"):
        average_precisions([nothing, _matches(other, guesses(other))], draw_images(8, 5))


def test_draws_repeat_and_their_size_in_memory_changes_nothing(monkeypatch):
    split = scenes(20)
    kept = [_matches(split, guesses(split, seed=seed)) for seed in (1, 2)]
    counts = draw_images(20, 50, seed=7)
    assert (counts == draw_images(20, 50, seed=7)).all() and (counts != draw_images(20, 50, seed=8)).any()
    assert (counts.sum(axis=0) == 20).all()
    whole = average_precisions(kept, counts)
    monkeypatch.setattr(images, "_CHUNK", 300)
    parts = average_precisions(kept, counts)
    np.testing.assert_array_equal(whole.by_iou, parts.by_iou)
    np.testing.assert_array_equal(whole.ap[1], average_precisions(kept[1:], counts).ap[0])


# ------------------------------------------------------------------------------------------- accuracy: closed forms


def _correct(rng, shape, probability=0.8):
    return rng.random(shape) < probability


def test_standard_errors_of_accuracies_are_the_closed_forms():
    rng = np.random.default_rng(0)
    shared = _correct(rng, 400)
    correct = np.stack([shared, shared ^ (rng.random(400) < 0.1)])
    found = accuracies(correct, draw_images(400, 4000))
    np.testing.assert_allclose(found[:, :3], 100 * (correct @ draw_images(400, 4000)[:, :3]) / 400, rtol=1e-12)
    noise = image_noise({0: found[0]}, {0: found[1]})
    # 4,000 draws: a standard error of a standard error of 1.1 %
    shares = correct.mean(axis=1)
    np.testing.assert_allclose(found.std(axis=1), 100 * np.sqrt(shares * (1 - shares) / 400), rtol=0.04)
    difference = correct[0].astype(float) - correct[1]
    assert noise.standard_error == pytest.approx(100 * difference.std() / 20, rel=0.04)
    half = 1.96 * noise.standard_error
    middle = 100 * difference.mean()
    assert noise.interval == pytest.approx((middle - half, middle + half), abs=0.15 * half)
    covariance = np.cov(found)
    assert noise.variance == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def test_pairing_takes_away_what_routes_agree_on():
    split = scenes(60)
    first = guesses(split)
    other = [{**d, "score": d["score"] * 0.5} if k % 25 == 0 else d for k, d in enumerate(first)]
    found = average_precisions([_matches(split, d) for d in (first, other)], draw_images(60, 400)).ap
    paired = image_noise({0: found[0]}, {0: found[1]}).variance
    assert 0 < paired < 0.2 * found.var(axis=1).sum()
    apart = average_precisions([_matches(split, other)], draw_images(60, 400, seed=9)).ap[0]
    assert image_noise({0: found[0]}, {0: apart}).variance == pytest.approx(found.var(axis=1).sum(), rel=0.3)


def test_only_seeds_of_both_routes_count():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(4, 100))
    noise = image_noise({0: draws[0], 1: draws[1], 2: draws[2]}, {1: draws[3], 5: draws[0]})
    assert noise.n == 1 and noise.both == 0 and noise.variance == pytest.approx((draws[1] - draws[3]).var(ddof=1))
    assert image_noise({0: draws[0]}, {1: draws[1]}) is None


def test_draws_without_a_box_are_left_out():
    values = np.array([1.0, np.nan, 3.0])
    assert image_noise({0: values}, {0: np.zeros(3)}).variance == pytest.approx(2.0)


# ----------------------------------------------------------------------------------------------- seeds and images


def _both_sources(rng, *, seeds, n_images, of_image, of_both):
    """Values (seeds, images) of a difference: an effect of each image, and one of each seed in each image."""
    return rng.normal(0, of_image, n_images) + rng.normal(0, of_both, (seeds, n_images))


def _split(values, counts):
    draws = dict(enumerate(values @ counts / values.shape[1]))
    seeds = values.mean(axis=1).var(ddof=1) / len(values)
    return split_variance(float(seeds), image_noise(draws, {seed: np.zeros(counts.shape[1]) for seed in draws}))


def test_what_seeds_and_images_share_is_counted_once():
    """Means of 4 seeds on 50 images: variance 1/50 from images, 4/200 from seeds in images, and no other from seeds."""
    rng = np.random.default_rng(2)
    counts = draw_images(50, 300)
    found = [_split(_both_sources(rng, seeds=4, n_images=50, of_image=1.0, of_both=2.0), counts) for _ in range(300)]
    parts = {name: np.mean([getattr(f, name) for f in found]) for name in ("seeds", "images", "both")}
    assert parts == pytest.approx({"seeds": 0.02, "images": 0.04, "both": 0.02}, rel=0.08)
    # the true variance is 0.04; the total is never less than a part of it, which makes it a little more
    assert 0.04 < np.mean([f.total for f in found]) < 0.048


def test_seeds_that_agree_on_every_image_share_nothing():
    values = np.random.default_rng(3).normal(size=50) + np.array([[0.0], [0.5], [1.0]])
    found = _split(values, draw_images(50, 300))
    assert found.both == pytest.approx(0, abs=1e-12)
    assert found.total == pytest.approx(0.25 / 3 + found.images)


def test_degrees_of_freedom_of_the_whole_are_those_of_the_seeds_where_images_add_nothing():
    assert Variance(seeds=1.0, images=0.0, both=0.0).df(4) == 4
    assert Variance(seeds=1.0, images=1.0, both=0.0).df(4) == 16  # (1 + 1)^2 / (1^2 / 4)
    assert Variance(seeds=0.0, images=1.0, both=0.0).df(4) == np.inf
