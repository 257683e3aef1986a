"""Distillation in a study: who has a teacher, what that costs, what is refused; from dry run to report."""

import pytest
from rich.console import Console
from support.tiny_study import DIGITS, TINY, tiny

from detect.cost import part_macs
from detect.data import class_names
from detect.data.loader import mean_image_size
from detect.data.open import open_detection
from study.plan.dry_run import print_plan
from study.plan.estimate import Estimator
from study.plan.load import load_study
from study.plan.pipelines import all_stages
from study.run.single import train_classifier_alone, train_detector_alone
from study.run.study import run_study
from study.stages.detector import load_detector
from training.strict_yaml import ConfigError

pytestmark = pytest.mark.slow  # trainings of whole studies

CONFIGS = DIGITS.parents[1]
BOTH = ("classifier.distill={weight: 0.5}", "detector.distill={}")
ROUTES = "unpruned, prune_then_transfer, transfer_then_prune, scratch_b, scratch_b_fair, detect_from_scratch"
TAUGHT = {"prune_then_transfer": ["fine_tune", "detect"], "transfer_then_prune": ["fine_tune_detector"]}


def routes_of(*overrides, routes=ROUTES):
    config, found = tiny(f"pipelines=[{routes}]", "evaluate={scenes: 0, latency_rounds: 1}", *overrides)
    return config, {route.pipeline: route for route in found}


def taught(route):
    return [step for step, stage in route.steps if stage.settings.get("distill")]


def test_networks_that_keep_their_weights_have_the_unpruned_one_as_teacher():
    _, plain = routes_of()
    _, found = routes_of(*BOTH)
    assert {name: taught(route) for name, route in found.items()} == {name: TAUGHT.get(name, []) for name in found}
    dense, detector = (stage for _, stage in found["unpruned"].steps[:2])
    steps = {name: dict(route.steps) for name, route in found.items()}
    assert steps["prune_then_transfer"]["fine_tune"].parents == (steps["prune_then_transfer"]["prune"], dense)
    assert steps["prune_then_transfer"]["detect"].parents[1] is detector
    assert steps["transfer_then_prune"]["fine_tune_detector"].parents[1] is detector
    order = found["prune_then_transfer"].stages  # the teacher first: what is last of a kind is the route's own
    assert [stage.kind for stage in order if stage in (detector, *steps["prune_then_transfer"].values())] == [
        *("train_classifier", "train_detector", "prune", "train_classifier", "train_detector", "evaluate")
    ]
    # what has no teacher is what it was; a route that spends as much as another asks what that spends
    changed = {name for name in found if found[name].evaluation.id != plain[name].evaluation.id}
    assert changed == {*TAUGHT, "scratch_b_fair"}
    off = routes_of("classifier.distill=null", "detector.distill=null")[1]
    assert {r.evaluation.id for r in off.values()} == {r.evaluation.id for r in plain.values()}


def test_a_teacher_is_not_what_a_method_trained_to_prune():
    """Slimming trains the network that it prunes with a penalty; the unpruned route's has none."""
    _, found = routes_of(*BOTH, "prune={method: slimming, ratio: 0.5, level: global}", routes="prune_then_transfer")
    steps = dict(found["prune_then_transfer"].steps)
    teacher = steps["fine_tune"].parents[1]
    assert steps["classify_for_pruning"].settings["effect"] and "effect" not in teacher.settings
    assert teacher is steps["detect"].parents[1].parents[0]


def test_a_network_that_is_pruned_and_not_trained_since_has_one_too():
    _, found = routes_of("detector.distill={}", routes="prune_then_detect")
    assert taught(found["prune_then_detect"]) == ["detect"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    config, routes = routes_of(*BOTH)
    console = Console(record=True, width=300)
    print_plan(config, list(routes.values()), runs, console)
    budget = Estimator(runs, config.machine)
    planned = {stage.id: budget.estimate(stage) for stage in all_stages(list(routes.values()))}
    out, outcome = run_study(config, DIGITS, list(routes.values()), runs)
    assert outcome.complete, outcome
    return runs, routes, console.export_text(), planned, out


def test_a_fine_tuning_costs_one_forward_pass_of_its_teacher_an_image_more(finished):
    runs, routes, *_ = finished
    steps = dict(routes["prune_then_transfer"].steps)
    dense = steps["classify_for_pruning"].run(runs).read_result()
    result = steps["fine_tune"].run(runs).read_result()
    assert result["images_seen"] == 48
    assert result["teacher_macs"] == 48 * dense["network"]["macs"]
    assert result["train_macs"] == 48 * (3 * result["network"]["macs"] + dense["network"]["macs"])


def test_a_detector_costs_its_teachers_backbone_pyramid_and_box_head_more(finished):
    runs, routes, *_ = finished
    stage = dict(routes["transfer_then_prune"].steps)["fine_tune_detector"]
    dataset = open_detection(stage.settings["data"], "train", runs / "data")
    counted = []
    for each in (stage, stage.parents[1]):
        _, detector, cfg = load_detector(each, runs, len(class_names(dataset)), device="cpu")
        regions = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
        counted.append(part_macs(detector, image_size=mean_image_size(dataset, cfg)).of(proposals=regions))
    small, dense = counted
    result = stage.run(runs).read_result()
    images = result["images_seen"]
    assert images == 2 * 1  # one of four iterations is behind the pruning
    assert result["teacher_macs"] == images * (dense.total - dense.rpn)
    assert result["train_macs"] == images * (3 * small.total + dense.total - dense.rpn)


def test_the_dry_run_tells_what_the_runs_then_cost(finished):
    runs, routes, said, planned, _ = finished
    results = {stage.id: stage.run(runs).read_result() for stage in all_stages(list(routes.values()))}
    assert {name: result["train_macs"] for name, result in results.items()} == {
        name: cost.train_macs for name, cost in planned.items()
    }
    teachers = {name: result.get("teacher_macs", 0) for name, result in results.items()}
    assert teachers == {name: cost.teacher_macs for name, cost in planned.items()}
    assert f"forward passes of teachers: {sum(teachers.values()):.4g} of these" in said
    assert len([macs for macs in teachers.values() if macs]) == 3


def test_the_report_says_who_was_taught_and_what_is_counted(finished):
    *_, out = finished
    said = " ".join((out / "report.md").read_text().replace("\\", "").split())
    assert (
        "Distilled from the unpruned network of the same seed: fine_tune and detect of prune_then_transfer;"
        " fine_tune_detector of transfer_then_prune. The teacher's forward passes are" in said
    )
    assert "Networks that start from random weights have no teacher" in said
    assert "% of these routes' training MACs, which count the teacher's own training as well" in said


def test_the_losses_of_both_halves_are_recorded(finished):
    runs, routes, *_ = finished
    steps = dict(routes["prune_then_transfer"].steps)
    lines = steps["detect"].run(runs).metrics.read_text()
    assert "loss_distill_features" in lines and "loss_distill_logits" in lines


def spent(budget, route):
    """What a route costs without the training of its teacher, and one iteration of its detector."""
    teachers = {stage.parents[1].id for stage in route.stages if stage.settings.get("distill")}
    own = [stage for stage in route.stages if stage.id not in teachers or stage.kind == "train_classifier"]
    detector = route.evaluation.parents[0]
    return sum(budget.estimate(s).train_macs for s in own), budget.estimate(detector).train_macs // budget.iterations(
        detector
    )


@pytest.mark.parametrize("rule", ["same_iterations", "same_compute"])
def test_equal_budgets_count_the_teacher(rule, tmp_path):
    config, found = routes_of(
        *BOTH, f"detector.budget={rule}", "detector.train.iterations=200", routes="prune_then_transfer, scratch_b_fair"
    )
    budget = Estimator(tmp_path, config.machine)
    (one, _), (other, iteration) = (spent(budget, found[name]) for name in ("prune_then_transfer", "scratch_b_fair"))
    assert abs(one - other) < 2 * iteration
    if rule == "same_compute":
        _, plain = routes_of(f"detector.budget={rule}", "detector.train.iterations=200", routes="prune_then_transfer")
        taught, alone = (
            budget.iterations(route.evaluation.parents[0])
            for route in (found["prune_then_transfer"], plain["prune_then_transfer"])
        )
        assert 100 < taught < 200 < alone


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["detector.distill={}", "detector.budget=same_total"],
            "detector.distill: budget same_total counts all stages",
        ),
        (["detector.distill={features: 0, logits: 0}"], "detector.distill: features and logits are both 0"),
        (
            ["detector.distill={}", "detector.model={head: c4, strides: [16]}"],
            "detector.distill.features: a detector with model.head: c4 has no FPN; set it to 0",
        ),
        (
            ["detector.distill={}", "detector.model={head: retinanet}"],
            "detector.distill.logits: a detector with model.head: retinanet has no box head on regions; set it to 0",
        ),
        (["classifier.distill={weight: 0}"], "classifier.distill.weight: 0 does not fit"),
        (["classifier.distill={weight: 1.5}"], "classifier.distill.weight: 1.5 does not fit"),
        (["classifier.distill={temperature: 0}"], "classifier.distill.temperature: 0 does not fit"),
        (["classifier.train.distill={}"], "classifier.train.distill: unknown key"),
        (
            ["classifier={arch: resnet18, weights: 'torchvision:DEFAULT', distill: {}}"],
            "distill: nothing is trained without `dataset`",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        load_study(DIGITS, overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_training_alone_has_no_teacher(finished):
    """Nor is it trained as if it had been asked for none."""
    runs, routes, *_ = finished
    steps = dict(routes["prune_then_transfer"].steps)
    message = "distill: a training alone has no teacher; run it in a study, or set distill: null"
    classifier = [o for o in TINY if o.startswith(("classifier.", "machine."))]
    with pytest.raises(ValueError, match=message):
        train_classifier_alone(
            CONFIGS / "classify" / "digits_resnet10.yaml",
            [*classifier, "regime=fine_tune", "classifier.distill={}"],
            pruned=steps["prune"].run(runs).path,
            runs=runs,
        )
    detector = [o for o in TINY if o.startswith(("detector.", "machine.", "evaluate"))]
    with pytest.raises(ValueError, match=message):
        train_detector_alone(
            CONFIGS / "detect" / "digits_fpn.yaml",
            [*detector, "detector.distill={}"],
            backbone=steps["fine_tune"].run(runs).path,
            runs=runs,
        )
