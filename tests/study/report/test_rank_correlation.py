"""The order of methods on classifiers and detectors, against taus counted by hand."""

import math

import pytest
from support.fabricated_study import a_comparison, a_row, a_step

from study.report.analyses import rank_correlation
from study.report.differences import Differences
from study.report.material import Material
from study.report.rows import StageResult
from study.report.tables import main_table
from study.report.topic import DETECTION

T_2, T_3 = 12.7062, 4.3027  # two-sided 95 % quantiles of Student's t for two and three seeds
TRAIN = {"epochs": 2}


class Study:
    """Rows of methods with the chain classify, prune, fine_tune, detect: accuracy and AP by seed."""

    def __init__(self):
        self.rows, self.stages = [], {}

    def stage(self, kind, run, *, metrics=None, **settings):
        self.stages[run] = StageResult(kind, kind, {"metrics": metrics or {}, "settings": settings})
        return a_step(kind, run)

    def add(self, method, accuracy, ap, *, route="prune_then_transfer", prune="taylor", tuned=True, **others):
        """A row a seed; `others`: `target_macs`, `ratio`, the detector's `train` and `init`, further fields `at`."""
        for seed, (top1, score) in enumerate(zip(accuracy, ap, strict=True)):
            name = f"{route}-{method}-{sorted(others.items())}/seed{seed}"
            selection = {"ratio": [others.get("ratio", 0.5)], "level": "layer"}
            if "target_macs" in others:
                selection["target_macs"] = others["target_macs"]
            found = {} if top1 is None else {"test_top1": top1}
            pruned = {"test_top1": 1.0, "recalibrated_top1": top1}  # that of before the statistics fit is not read
            chain = [
                self.stage("train_classifier", f"dense/seed{seed}", metrics={"test_top1": 99.0}, regime="base"),
                self.stage("prune", f"p-{name}", metrics=pruned, method=prune, selection=selection),
            ]
            if tuned:
                chain.append(
                    self.stage("train_classifier", f"c-{name}", metrics=found, regime="fine_tune", train=TRAIN)
                )
            settings = {"train": others.get("train", {"iterations": 4}), "init": others.get("init", "inherited")}
            chain.append(self.stage("train_detector", f"d-{name}", **settings))
            chain.append(self.stage("evaluate", f"e-{name}"))
            point = {"variant": method, **others.get("at", {})}
            self.rows.append(a_row(route, seed, chain, point, AP=score, prune_seconds=0.5))
        return self

    def analyse(self, folder):
        material = Material.of(a_comparison(self.rows, self.stages), folder)
        exhibit = rank_correlation.analyse(material)
        if exhibit is None:
            return None, []
        return exhibit, [dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows]


def four():
    """Four methods, two seeds. Of six pairs one is turned around with seed 0, and two are with seed 1."""
    return (
        Study()
        .add("a", (70.0, 70.0), (40.0, 42.0))
        .add("b", (71.0, 71.0), (41.0, 41.0))
        .add("c", (72.0, 72.0), (43.0, 40.0))
        .add("d", (73.0, 73.0), (42.0, 43.0))
    )


def test_tau_is_the_mean_over_seeds_with_students_interval(tmp_path):
    exhibit, (row,) = four().analyse(tmp_path)
    # seed 0: 5 pairs agree, 1 does not: 4/6; seed 1: the APs 42 41 40 43 turn three of six around: 0
    assert row["tau"] == pytest.approx((4 / 6 + 0) / 2)
    half = T_2 * (4 / 6) / math.sqrt(2) / math.sqrt(2)
    assert half > 1 and (row["95 % from"], row["95 % to"]) == (-1, 1)  # cut to where a tau can be
    assert (row["methods"], row["n"]) == (4, 2)
    # means 41, 41, 41.5, 42.5: five pairs agree and one is tied; tau-b is 5 / sqrt(6 * 5)
    assert row["tau of the means"] == pytest.approx(5 / math.sqrt(30))
    assert row["accuracy of two seeds"] == 1
    # AP 40 41 43 42 and 42 41 40 43: of the pairs ab ac ad bc bd cd, ad and bd agree
    assert row["AP of two seeds"] == pytest.approx((2 - 4) / 6)
    (marks,) = exhibit.figure.data
    assert list(marks.x) == [70, 71, 72, 73] and list(marks.y) == [41, 41, 41.5, 42.5]
    assert list(marks.text) == ["a", "b", "c", "d"] and marks.meta == "prune_then_transfer"


def test_three_seeds_have_an_interval_within_a_taus_bounds(tmp_path):
    study, taus = Study(), (1, 1, 4 / 6)
    for i, (name, last) in enumerate(zip("abcd", (1, 0, 2, 3), strict=True)):
        study.add(name, (i, i, i), (i, i, last))
    _, (row,) = study.analyse(tmp_path)
    mean = sum(taus) / 3
    deviation = math.sqrt(sum((tau - mean) ** 2 for tau in taus) / 2)
    assert row["tau"] == pytest.approx(mean)
    assert row["95 % from"] == pytest.approx(mean - T_3 * deviation / math.sqrt(3), abs=1e-4)
    assert row["95 % to"] == 1


def test_seeds_that_all_say_the_same_have_no_interval(tmp_path):
    study = Study()
    for i, name in enumerate("abc"):
        study.add(name, (i, i), (i, i))
    _, (row,) = study.analyse(tmp_path)
    assert (row["tau"], row["95 % from"], row["95 % to"], row["n"]) == (1, None, None, 2)


def test_only_methods_with_one_share_and_one_training_are_ranked(tmp_path):
    study = four().add("more", (60.0, 60.0), (20.0, 20.0), ratio=0.8)
    study.add("longer", (74.0, 74.0), (50.0, 50.0), train={"iterations": 8})
    study.add("others", (74.0, 74.0), (50.0, 50.0), at={"classifier.train.lr": 0.1})
    for name in ("e", "f", "g"):
        study.add(name, (70.0, 70.0), (40.0, 40.0), target_macs=0.5)
    _, rows = study.analyse(tmp_path)
    assert [(row["at"], row["methods"]) for row in rows] == [
        ("channels, prune.ratio = 0.5", 4),
        ("channels, prune.target_macs = 0.5", 3),
    ]
    assert (rows[1]["tau"], rows[1]["n"], rows[1]["tau of the means"]) == (None, 0, None)  # all equal: no order


def test_single_weights_are_ranked_apart(tmp_path):
    study = four()
    for name in ("e", "f", "g"):
        study.add(name, (70.0, 70.0), (40.0, 40.0), prune="magnitude")
        for seed in (0, 1):
            run = tmp_path / f"p-prune_then_transfer-{name}-[]" / f"seed{seed}"
            run.mkdir(parents=True)
            (run / "masks.safetensors").write_bytes(b"")
    _, rows = study.analyse(tmp_path)
    assert [(row["at"].partition(",")[0], row["methods"]) for row in rows] == [("channels", 4), ("single weights", 3)]


def test_a_pruning_that_nothing_follows_is_scored_with_its_statistics_anew(tmp_path):
    study = Study()
    for i, name in enumerate("abc"):
        study.add(name, (i, i), (i, i), route="prune_then_detect", tuned=False)
    exhibit, (row,) = study.analyse(tmp_path)
    assert (row["tau"], list(exhibit.figure.data[0].x)) == (1, [0, 1, 2])


def test_detectors_whose_weights_no_classifier_gave_are_left_out(tmp_path):
    study = Study()
    for i, name in enumerate("abc"):
        study.add(name, (i, i), (i, i), route="detect_from_scratch", tuned=False, init="random")
    assert study.analyse(tmp_path) == (None, [])


def test_a_seed_that_lacks_a_score_is_left_out_and_two_methods_have_no_order(tmp_path):
    two = Study().add("a", (70.0, 70.0), (40.0, 42.0)).add("b", (71.0, 71.0), (41.0, 41.0))
    assert two.analyse(tmp_path) == (None, [])
    _, (row,) = four().add("e", (74.0, None), (44.0, 44.0)).analyse(tmp_path)
    assert (row["methods"], row["n"]) == (5, 2)
    assert row["tau"] == pytest.approx((8 / 10 + 0) / 2)


def test_the_main_table_says_what_each_method_took_to_choose(tmp_path):
    material = Material.of(a_comparison(four().rows), tmp_path)
    table = main_table(material.routes, ["variant"], DETECTION, Differences(material.routes, "AP"))
    column = table.columns.index("choosing what to prune")
    assert [(*line.point, line.cells[column].text) for line in table.lines] == [(name, "0.5 s") for name in "abcd"]
