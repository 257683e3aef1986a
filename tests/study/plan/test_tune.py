"""What is tried for which route, and which of it is chosen."""

import pytest
from support.tiny_classification import tiny
from support.tiny_study import tiny as tiny_detection

from study.plan.pipelines import all_stages
from study.plan.tune import Decision, plan_study
from study.stages.contents import Contents

L1 = {"prune": {"method": "l1_filter", "ratio": 0.5}}


def planned(changes):
    """The plan of the tiny study of classifiers, its tunings by pipeline."""
    config, routes = tiny(changes)
    plan = plan_study(config, routes, source="tiny.yaml", contents=Contents())
    return plan, {tuning.pipeline: tuning for tuning in plan.tunings}


def values(tuning):
    return [dict(candidate.values) for candidate in tuning.candidates]


def test_a_value_is_tried_where_it_makes_a_difference_and_the_configs_own_always_is():
    pipelines = ["unpruned", "fine_tune", "scratch_e"]
    tune = {"classifier.fine_tune.lr": [0.002, 0.01, 0.05], "classifier.scratch.momentum": [0.5]}
    _, found = planned({"pipelines": pipelines, "tune": tune, **L1})
    key = "classifier.fine_tune.lr"
    assert values(found["unpruned"]) == [{}] and found["unpruned"].routes == []
    assert values(found["fine_tune"]) == [{key: 0.01}, {key: 0.002}, {key: 0.05}]
    assert values(found["scratch_e"]) == [{"classifier.scratch.momentum": 0.9}, {"classifier.scratch.momentum": 0.5}]


def test_several_keys_are_tried_in_every_combination_and_what_is_equal_is_trained_once():
    tune = {"classifier.train.lr": [0.1], "classifier.fine_tune.lr": [0.002]}
    plan, found = planned({"pipelines": ["unpruned", "fine_tune"], "tune": tune, "tune_seeds": [7, 8], **L1})
    assert values(found["unpruned"]) == [{"classifier.train.lr": 0.05}, {"classifier.train.lr": 0.1}]
    assert [tuple(v.values()) for v in values(found["fine_tune"])] == [
        (0.05, 0.01),
        (0.05, 0.002),
        (0.1, 0.01),
        (0.1, 0.002),
    ]
    stages = all_stages(plan.tried)
    assert len(stages) == 2 * (2 + 2 + 4)  # two seeds; dense trainings and their prunings at two rates, four tunings
    assert {stage.seed for stage in stages} == {7, 8}


def test_nothing_of_the_first_phase_looks_at_the_test_split():
    plan, _ = planned({"tune": {"classifier.train.lr": [0.1]}})
    assert all(stage.settings["untested"] for stage in all_stages(plan.tried))
    config, routes = tiny_detection("tune={detector.train.lr: [0.01]}", "pipelines=[unpruned, transfer_then_prune]")
    plan = plan_study(config, routes, source="", contents=Contents())
    by_kind = {stage.kind: stage.settings for stage in all_stages(plan.tried)}
    assert by_kind["train_classifier"]["untested"]
    assert by_kind["evaluate"]["split"] == "val" and by_kind["evaluate"]["scenes"] == 0
    assert all("untested" not in stage.settings for stage in all_stages(routes))


def test_each_variant_has_its_own_rates_and_a_route_that_it_leaves_as_it_is_is_tried_once():
    slow = {**L1, "classifier": {"fine_tune": {"lr": 0.002}}}
    changes = {"variants": {"fast": L1, "slow": slow}, "pipelines": ["unpruned", "fine_tune"]}
    plan, _ = planned({**changes, "tune": {"classifier.fine_tune.lr": [0.002, 0.004]}})
    found = [(t.pipeline, t.point.get("variant"), [[*one.values()] for one in values(t)]) for t in plan.tunings]
    assert found == [
        ("unpruned", None, [[]]),
        ("fine_tune", "fast", [[0.01], [0.002], [0.004]]),
        ("fine_tune", "slow", [[0.002], [0.004]]),
    ]


def decided(scores, diverged=("", "", ""), tune=(0.002, 0.05)):
    _, found = planned({"pipelines": ["fine_tune"], "tune": {"classifier.fine_tune.lr": list(tune)}, **L1})
    decision = Decision(found["fine_tune"], tuple((score,) for score in scores), diverged)
    return decision.chosen and decision.chosen.values["classifier.fine_tune.lr"]


def test_the_highest_mean_is_chosen_and_of_equal_ones_the_own_then_the_smaller():
    assert decided((50.0, 60.0, 70.0)) == 0.05
    assert decided((70.0, 70.0, 70.0)) == 0.01
    assert decided((50.0, 70.0, 70.0)) == 0.002
    assert decided((50.0, 70.0, 70.0), tune=(0.05, 0.002)) == 0.002
    assert decided((50.0, None, 70.0)) is None  # it has not run
    assert decided((50.0, None, 40.0), ("", "step 3: the loss is nan", "")) == 0.01
    assert decided((None, None, None), ("nan", "nan", "nan")) is None


def test_a_route_at_its_best_is_a_row_of_its_own_unless_the_recipe_is_best_for_all():
    plan, found = planned({"pipelines": ["fine_tune"], "seeds": [0, 1], "tune": {"classifier.fine_tune.lr": [0.002]}})
    (tuning,) = found.values()

    def rows(scores):
        decisions = [Decision(tuning, scores, ("", ""))]
        return [(route.point.get("rates"), route.seed) for route in plan.routes(decisions)]

    assert rows(((50.0,), (40.0,))) == [(None, 0), (None, 1)]
    assert rows(((50.0,), (60.0,))) == [("recipe", 0), ("recipe", 1), ("tuned", 0), ("tuned", 1)]
    assert rows(((50.0,), (None,))) == [("recipe", 0), ("recipe", 1)]
    recipe, _, tuned, _ = plan.routes([Decision(tuning, ((50.0,), (60.0,)), ("", ""))])
    assert recipe.evaluation.id == plan.recipe[0].evaluation.id
    assert tuned.evaluation.settings["train"]["lr"] == 0.002 and "untested" not in tuned.evaluation.settings
    assert tuned.stages[0].id == recipe.stages[0].id  # the dense training before is the same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tune": {"classifier.train.epochs": [3]}},
            "only rates and factors of a training are chosen by validation: lr,",
        ),
        ({"tune": {"classifier.train.batch_size": [3]}}, "tune.classifier.train.batch_size: "),
        ({"tune": {"seeds": [3]}}, "tune.seeds: only rates"),
        ({"tune": {"prune.ratio": [0.3]}}, "tune.prune.ratio: only rates"),
        ({"tune": {"classifier.train.rl": [0.3]}}, "did you mean 'classifier.train.lr'?"),
        ({"tune": {"detector.train.lr": [0.3]}}, "tune.detector.train.lr: this study has no `detector`"),
        ({"tune": {"classifier.train.lr": []}}, "the values [] are none or repeat themselves"),
        ({"tune": {"classifier.train.lr": [0.1, 0.1]}}, "the values [0.1, 0.1] are none or repeat themselves"),
        ({"tune": {"classifier.train.lr": ["fast"]}}, "expected: number"),
        (
            {"tune": {"classifier.train.lr": [-0.1]}},
            "tune classifier.train.lr = -0.1: classifier.train.lr: -0.1 does not",
        ),
        ({"tune": {"classifier.train.lr": [0.1]}, "tune_seeds": [0]}, "tune_seeds: [0] are `seeds` of the study too"),
        ({"tune_seeds": [4, 4]}, "[4, 4] repeat themselves"),
        (
            {"tune": {"classifier.train.lr": [0.1]}, "grid": {"classifier.train.lr": [0.1, 0.2]}},
            "tune.classifier.train.lr: it is in `grid` too",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError) as error:
        planned(changes)
    assert message in str(error.value)


def test_rates_of_detectors_need_a_validation_split(tmp_path):
    files = f"{{annotations: {tmp_path}/a.json, images: {tmp_path}}}"
    own = [f"detector.dataset={{coco: {{train: {files}, test: {files}}}}}", "tune={detector.train.lr: [0.1]}"]
    with pytest.raises(ValueError, match=r"the detector's data has none; set detector\.dataset\.validation"):
        tiny_detection(*own)
    with pytest.raises(ValueError, match=r"a\.json is not there"):
        tiny_detection(*own, "detector.dataset.validation=0.1")
