"""Routes that were still improving when their training ended: made-up curves."""

import json
from dataclasses import replace

import pytest
from support.fabricated_study import a_comparison, a_row, a_step

from study.report.convergence import late_gain, still_improving
from study.report.material import Material

STEPS = list(range(1, 101))


def test_a_gain_is_the_rise_of_a_line_over_the_last_tenth():
    assert late_gain(STEPS, [0.5 * step for step in STEPS]) == pytest.approx(5.0)
    bent = [100.0 * step if step <= 90 else 9000 - 0.2 * (step - 90) for step in STEPS]
    assert late_gain(STEPS, bent) == pytest.approx(-2.0)  # what was before does not count
    assert late_gain(STEPS, [70.0] * 100) == 0.0


@pytest.mark.parametrize("every, enough", [(2, True), (3, False), (10, False)])
def test_a_curve_of_few_points_says_nothing(every, enough):
    """Every second of 100 steps: 5 points after step 90; every third: 93, 96 and 99."""
    steps = STEPS[every - 1 :: every]
    assert (late_gain(steps, [float(step) for step in steps]) is not None) == enough


def said(tmp_path, task, curves, key, *after):
    """What is said of routes; `curves`: by route the slope of each seed's curve in its last tenth, per step."""
    rows, kind = [], "train_detector" if task == "detection" else "train_classifier"
    for route, slopes in curves.items():
        for seed, slope in enumerate(slopes):
            step = a_step(kind, f"{kind}-{route}/seed{seed}")
            folder = tmp_path / step.run
            folder.mkdir(parents=True)
            lines = [{"step": s, "loss": 1.0, key: 50 + slope * s} for s in STEPS]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            rows.append(a_row(route, seed, [step, *after], AP=1.0))
    return "".join(still_improving(Material.of(replace(a_comparison(rows), task=task), tmp_path)))


def detectors(tmp_path, curves):
    return said(tmp_path, "detection", curves, "loss", a_step("evaluate", "e/seed0"))


def classifiers(tmp_path, curves, *after):
    return said(tmp_path, "classification", curves, "val_accuracy", *after)


def test_a_falling_loss_over_seeds_is_flagged_and_a_flat_one_is_not(tmp_path):
    """Slopes of -0.1 a step: -1.0 over the last ten; two routes share the 95 %."""
    found = detectors(tmp_path, {"scratch_e": [-0.10, -0.11, -0.09], "unpruned": [0.01, -0.01, 0.0]})
    assert found.startswith("Still improving over the last tenth of the training: scratch_e (training loss −1.0")
    assert found.endswith(", n = 3); longer training could change the order of the routes.")
    assert "unpruned" not in found


def test_what_seeds_do_not_agree_on_is_not_flagged(tmp_path):
    assert detectors(tmp_path, {"scratch_e": [-0.2, 0.05, 0.0]}) == ""


def test_one_seed_and_worse_curves_are_not_flagged(tmp_path):
    assert detectors(tmp_path, {"scratch_e": [-0.2], "unpruned": [0.2, 0.21, 0.2]}) == ""


def test_a_run_whose_curve_is_gone_is_no_error(tmp_path):
    rows = [a_row("scratch_e", seed, [a_step("train_detector", f"gone/seed{seed}")], AP=1.0) for seed in (0, 1)]
    assert list(still_improving(Material.of(a_comparison(rows), tmp_path))) == []


def test_of_classifiers_the_validation_accuracy_counts(tmp_path):
    found = classifiers(tmp_path, {"scratch_e": [0.11, 0.112, 0.108], "fine_tune": [0.0, 0.01, 0.0]})
    assert "scratch_e (validation accuracy +1.1" in found and "fine_tune" not in found


def test_the_network_as_it_was_pruned_has_no_training_of_its_own(tmp_path):
    assert classifiers(tmp_path, {"pruned": [0.1, 0.1]}, a_step("prune", "p/seed0")) == ""
