"""A study that chooses its rates, whole: two phases, a row at the recipe and one at the best, and the table of both."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from support.tiny_classification import tiny
from support.tiny_study import DIGITS, TINY
from support.tiny_study import tiny as tiny_detection
from support.trivial_stages import Doing

from pruning.errors import Diverged, Failure
from study.commands.run import add_arguments, main
from study.plan.pipelines import all_stages
from study.report.rates import rates_warnings
from study.report.rows import load_comparison
from study.report.tuned import Tried, Tuned
from study.run import study as module
from study.run.housekeeping import unused_runs
from study.run.launch import make_parser
from study.run.study import load_written_study, report_again, run_study
from study.stages.stage import KINDS
from training.stopping import Stopped

pytestmark = pytest.mark.slow  # trainings of whole studies

ROUTES = ["unpruned", "prune_then_transfer"]
DETECTION = [f"pipelines={ROUTES}", "tune={detector.train.lr: [0.01, 0.06]}", "seeds=[0, 1]"]
L1 = {"prune": {"method": "l1_filter", "ratio": 0.5}}
CLASSIFIERS = {"pipelines": ["unpruned", "fine_tune"], "tune": {"classifier.fine_tune.lr": [0.002, 0.05]}, **L1}


def scored(monkeypatch, kind, score):
    """Stages of `kind` as they are, but for what `score` says of them: numbers of so small a study have no meaning."""
    real = KINDS[kind]

    def act(context):
        found = real.run(context)
        found["metrics"] = {**found["metrics"], **score(context.stage)}
        return found

    monkeypatch.setitem(KINDS, kind, Doing(kind, act))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two routes to a detector: a large rate is better for the dense one, the recipe's for the pruned one."""
    runs = tmp_path_factory.mktemp("runs")

    def score(stage):
        if stage.settings["split"] != "val":
            return {}
        lr, dense = stage.parents[0].settings["train"]["lr"], len(stage.with_ancestors()) == 3
        return {"AP": {0.01: 20.0, 0.03: 40.0, 0.06: 60.0 if dense else 30.0}[lr]}

    with pytest.MonkeyPatch.context() as patch:
        scored(patch, "evaluate", score)
        config, routes = tiny_detection(*DETECTION)
        out, outcome = run_study(config, DIGITS, routes, runs)
    assert outcome.complete, outcome
    return out, runs


def test_every_route_runs_at_the_recipe_and_at_its_best_which_may_be_the_same_runs(finished):
    out, runs = finished
    comparison = load_comparison(out / "comparison.json")
    rows = [(row.point["rates"], row.pipeline, row.seed) for row in comparison.rows]
    assert rows == [(*row, seed) for row in product(("recipe", "tuned"), ROUTES) for seed in (0, 1)]
    assert comparison.missing == ()
    detectors = [next(step for step in row.chain if step.kind == "train_detector") for row in comparison.rows]
    rates = [json.loads((runs / step.run / "result.json").read_text())["settings"]["train"]["lr"] for step in detectors]
    assert rates == [0.03, 0.03, 0.03, 0.03, 0.06, 0.06, 0.03, 0.03]
    assert comparison.rows[0].chain[0].run == comparison.rows[4].chain[0].run  # the classifier is the same
    assert [step.run for step in comparison.rows[2].chain] == [step.run for step in comparison.rows[6].chain]
    text = (out / "report.md").read_text()
    assert text.startswith("# ") and "rates = recipe: **" in text and "rates = tuned: **" in text
    assert "not at this point" not in text


def test_the_table_says_what_was_tried_and_what_it_cost(finished):
    out, runs = finished
    dense, pruned = load_comparison(out / "comparison.json").tuning
    assert [(tried.values, tried.scores, tried.recipe, tried.chosen) for tried in dense.tried] == [
        ({"detector.train.lr": 0.03}, (40.0,), True, False),
        ({"detector.train.lr": 0.01}, (20.0,), False, False),
        ({"detector.train.lr": 0.06}, (60.0,), False, True),
    ]
    assert [tried.chosen for tried in pruned.tried] == [True, False, False]
    assert dense.seeds == (1000,)
    stages = [s for r in load_written_study(out)[2].tunings[0].routes for s in r.stages]
    once = {stage.id: stage.run(runs).read_result()["train_macs"] for stage in stages}
    assert dense.train_macs == sum(once.values()) > 0
    text = (out / "report.md").read_text()
    assert "## Rates" in text and "| unpruned | detector.train.lr = 0.03 | 40.0 | 40.0 | recipe |" in text
    assert "|  | detector.train.lr = 0.06 | 60.0 | 60.0 | chosen |" in text
    edge = "Rates at the edge: detector.train.lr = 0.06 is the largest value tried and the best for unpruned;"
    page = (out / "report.html").read_text()
    assert edge in text and edge in page and '<section id="rates">' in page


def test_nothing_that_was_tried_was_scored_on_the_test_split(finished):
    out, runs = finished
    tried = all_stages(load_written_study(out)[2].tried)
    assert {stage.seed for stage in tried} == {1000}
    for stage in tried:
        result = stage.run(runs).read_result()
        assert not [name for name in result["metrics"] if "test" in name or "recalibrated" in name], stage.id
        if stage.kind == "evaluate":
            assert result["evaluation"]["split"] == "val" and result["evaluation"]["images"] == 2
            assert not (stage.run(runs).path / "detections").exists()


def test_a_second_start_and_a_report_made_again_change_nothing(finished, monkeypatch):
    out, runs = finished
    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, Doing(kind, lambda context: pytest.fail(f"ran {context.stage.id}")))
    before = (out / "comparison.json").read_text()
    config, routes = tiny_detection(*DETECTION)
    assert run_study(config, DIGITS, routes, runs)[1].complete
    report_again(out)
    assert (out / "comparison.json").read_text() == before
    assert unused_runs(runs) == []


def test_the_dry_run_and_the_watch_show_both_phases(finished, tmp_path, capsys):
    _, runs = finished

    def shown(*words):
        parser = make_parser(None, add_arguments)
        arguments = map(str, [DIGITS, *TINY, *DETECTION, "--runs", *words])
        assert main(parser.parse_intermixed_args([*arguments])) == 0
        return capsys.readouterr().out

    fresh = shown(tmp_path, "--dry-run")
    assert "tiny: choosing rates: 6 routes, 15 stages" in fresh and "tiny: 4 routes, 14 stages" in fresh
    assert "routes at their best: at most 8 stages more" in fresh and "counted at the recipe's cost" in fresh
    again = shown(runs, "--dry-run")
    assert "tiny: 8 routes, 18 stages" in again and "of which 0 are left" in again and "at most" not in again
    assert "34 of 34 stages done" in shown(runs, "--watch")


def better_at(lr):
    def score(stage):
        if stage.settings.get("untested"):
            return {"val_top1": 90.0 if stage.settings["train"]["lr"] == lr else 50.0}
        return {}

    return score


def test_a_study_killed_between_its_phases_goes_on_with_the_second(tmp_path, monkeypatch):
    scored(monkeypatch, "train_classifier", better_at(0.002))
    phases, real = [], module.run_stages

    def killed(stages, *rest):
        phases.append(len(stages))
        if len(phases) == 2:
            raise Stopped(15)
        return real(stages, *rest)

    monkeypatch.setattr(module, "run_stages", killed)
    config, routes = tiny(CLASSIFIERS)
    with pytest.raises(Stopped):
        run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert phases == [5, 4]  # dense, pruned, three rates; dense, pruned, fine-tuned at two of them
    phases[:] = [0, 0]
    _, outcome = run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert phases == [0, 0, 4, 1] and outcome.complete  # and the networks' times
    comparison = load_comparison(tmp_path / "tiny" / "comparison.json")
    assert [row.point["rates"] for row in comparison.rows] == ["recipe", "recipe", "tuned", "tuned"]


def failing(monkeypatch, error):
    real = KINDS["train_classifier"]

    def act(context):
        if (
            context.stage.settings.get("untested")
            and context.stage.settings["train"]["lr"] == 0.05
            and context.stage.parents
        ):
            raise error
        return real.run(context)

    monkeypatch.setitem(KINDS, "train_classifier", Doing("train_classifier", act))


def test_a_rate_at_which_training_diverges_is_an_answer_and_not_tried_again(tmp_path, monkeypatch):
    failing(monkeypatch, Diverged("step 3: the loss is nan"))
    config, routes = tiny(CLASSIFIERS)
    out, outcome = run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert outcome.complete
    tried = load_comparison(out / "comparison.json").tuning[1].tried
    assert [one.diverged for one in tried] == ["", "", "step 3: the loss is nan"] and not tried[2].chosen
    assert r"| classifier.fine\_tune.lr = 0.05 | diverged |" in (out / "report.md").read_text()
    failing(monkeypatch, AssertionError("tried again"))
    assert run_study(config, Path("tiny.yaml"), routes, tmp_path)[1].complete


def test_without_all_that_was_to_be_tried_nothing_is_chosen(tmp_path, monkeypatch):
    failing(monkeypatch, Failure("the moon is full"))
    config, routes = tiny(CLASSIFIERS)
    out, outcome = run_study(config, Path("tiny.yaml"), routes, tmp_path)
    assert list(outcome.failed.values()) == ["the moon is full"] and not outcome.blocked
    comparison = load_comparison(out / "comparison.json")
    rows = [(row.pipeline, row.point["rates"]) for row in comparison.rows]
    assert rows == [("unpruned", "recipe"), ("fine_tune", "recipe"), ("unpruned", "tuned")]
    (gap,) = comparison.missing
    assert (gap.pipeline, gap.point) == ("fine_tune", {"rates": "tuned"})
    assert gap.why == "its rates are not chosen: train_classifier failed: the moon is full"
    monkeypatch.undo()
    assert run_study(config, Path("tiny.yaml"), routes, tmp_path)[1].complete  # the same command tries it again


def tuned(*chosen, others=()):
    tried = [Tried({"a.lr": value}, (1.0,), "", False, value in chosen) for value in sorted({*chosen, *others})]
    return Tuned("fine_tune", {}, (1000,), tuple(tried), 0)


def test_a_best_rate_at_the_edge_of_its_grid_is_warned_of():
    assert rates_warnings([tuned(0.1, others=(0.01, 1.0))]) == []
    (low,) = rates_warnings([tuned(0.01, others=(0.1, 1.0))])
    assert "a.lr = 0.01 is the smallest value tried and the best for fine_tune; a better one may lie beyond" in low
    both = [tuned(1.0, others=(0.1,)), replace(tuned(1.0, others=(0.1,)), pipeline="other", point={"variant": "l1"})]
    (high,) = rates_warnings(both)
    assert "a.lr = 1 is the largest value tried and the best for fine_tune, other (variant = l1);" in high
