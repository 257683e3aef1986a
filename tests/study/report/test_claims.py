"""Each kind of statement on made-up rows: shown, refuted, undecided; and nothing compared that differs otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.fabricated_classification import ARCH, CLASSES, OPTIONS, fabricate_classification
from support.fabricated_study import a_row, a_step

from classify.models import build
from study.config.load import read_yaml
from study.report.artifacts import RunFiles
from study.report.claims.__main__ import listing
from study.report.claims.judge import Margin, findings
from study.report.claims.measures import Sources, by_seed
from study.report.claims.pruned_by import PrunedBy
from study.report.claims.statement import Only, Side, Statement
from study.report.differences import Differences
from study.report.routes import group_routes
from study.report.rows import Comparison, StageResult
from study.report.topic import CLASSIFICATION, TOPICS

CONFIGS = Path(__file__).parents[3] / "configs" / "pipelines"
NOISE = (0.0, 0.1, -0.1)
RATE = "classifier.fine_tune.lr"


class Study:
    """Rows by route and variant, and what the stages of a variant recorded."""

    def __init__(self):
        self.rows, self.facts = [], {}

    def add(self, route, variant, scores, facts=None, **columns):
        point = {"variant": variant}
        for seed, score in enumerate(scores):
            numbers = {name: values[seed] for name, values in columns.items()}
            self.rows.append(a_row(route, seed, [a_step("prune", "prune-a")], point, top1=score, **numbers))
        self.facts[f"{route} (variant = {variant})"] = facts or {}
        return self

    def judge(self, statement, margin=1.0, sources=None):
        routes = group_routes(self.rows)
        pruned = {k: PrunedBy(method=f.get("prune.method", ""), facts=f) for k, f in self.facts.items()}
        topic = replace(CLASSIFICATION, statements=(statement,))
        differences = Differences(routes, "top1")
        return findings(routes, topic, differences, Margin(margin, "a test"), pruned, sources=sources)

    def verdicts(self, statement, **options):
        return [found.verdict for found in self.judge(statement, **options)]


def around(mean, spread=1.0):
    return [mean + spread * noise for noise in NOISE]


@pytest.mark.parametrize(
    ("leads", "spread", "verdict"),
    [((0, 2, 5), 1, "supported"), ((5, 2, 0), 1, "contradicted"), ((0, 1, 0.5), 20, "undecided")],
)
def test_a_trend_is_the_slope_of_the_difference_over_the_ratios(leads, spread, verdict):
    study = Study()
    for ratio, lead in zip((0.3, 0.5, 0.8), leads, strict=True):
        facts = {"prune.ratio": ratio, "prune.method": "a"}
        study.add("fine_tune", f"v{ratio}", around(50), facts)
        study.add("scratch_e", f"v{ratio}", [50 + lead - spread * n * 10 * ratio**2 for n in NOISE], facts)
    rises = Statement(Side("scratch_e"), Side("fine_tune"), ">", "", field="prune.ratio", trend=True)
    (found,) = study.judge(rises)
    assert found.verdict == verdict
    assert found.place == "variant = v0.3 / v0.5 / v0.8"
    assert found.evidence.startswith("slope over 3 values of prune.ratio, % top-1 a unit: ")
    opposite = {"supported": "contradicted", "contradicted": "supported"}
    assert study.verdicts(replace(rises, relation="<")) == [opposite.get(verdict, verdict)]


def test_the_slope_of_a_line_is_in_points_a_unit_of_the_field():
    study = Study()
    for value in (0.0, 0.5, 1.0):
        study.add("mine", f"v{value}", around(60 - 8 * value), {"detector.prune_at": value})
    falls = Statement(Side("mine"), Side("mine"), "<", "", field="detector.prune_at", trend=True)
    (found,) = study.judge(falls)
    assert (found.verdict, round(found.difference.estimate, 6)) == ("supported", -8.0)
    assert falls.text == "mine falls with detector.prune_at"


def test_two_values_make_no_trend_and_another_setting_ends_a_line():
    study = Study()
    for ratio, epochs in ((0.3, 10), (0.5, 10), (0.8, 20)):
        facts = {"prune.ratio": ratio, "classifier.train.epochs": epochs}
        study.add("fine_tune", f"v{ratio}", around(50), facts).add("scratch_e", f"v{ratio}", around(51), facts)
    assert (
        study.verdicts(Statement(Side("scratch_e"), Side("fine_tune"), ">", "", field="prune.ratio", trend=True)) == []
    )


@pytest.mark.parametrize(("score", "verdict"), [(53.5, "supported"), (50.5, "contradicted"), (52.0, "undecided")])
def test_at_an_equal_cost_the_other_side_is_interpolated(score, verdict):
    """The controls have 50 at 100 and 54 at 400: 52 at 200, halfway in the logarithm."""
    study = Study().add("scratch_e", "s", around(score, 3), {"prune.method": "slimming"}, params=[200] * 3)
    for params, control in ((100, 50), (400, 54)):
        study.add("scratch_e", f"u{params}", around(control), {"prune.method": "uniform"}, params=[params] * 3)
    above = Statement(
        Side("scratch_e", methods=("slimming",)), Side("scratch_e", methods=("uniform",)), ">", "", equal_cost="params"
    )
    (found,) = study.judge(above)
    assert found.verdict == verdict
    assert f"{score:.2f} against 52.00 % top-1" in found.evidence


def test_a_cost_beyond_the_other_side_is_compared_with_an_equal_one_only():
    above = Statement(
        Side("scratch_e", methods=("slimming",)), Side("scratch_e", methods=("uniform",)), ">", "", equal_cost="params"
    )
    for params, n in ((104, 1), (106, 0)):
        study = Study().add("scratch_e", "s", around(53), {"prune.method": "slimming"}, params=[params] * 3)
        study.add("scratch_e", "u", around(50), {"prune.method": "uniform"}, params=[100] * 3)
        assert len(study.judge(above)) == n


@pytest.mark.parametrize(("large", "verdict"), [(55, "supported"), (45, "contradicted"), (50, "undecided")])
def test_the_extremes_of_a_setting_are_found_among_variants_that_differ_in_nothing_else(large, verdict):
    study = Study()
    for variant, rate, score, epochs in (("s", 0.001, 50, 3), ("l", 0.1, large, 3), ("long", 0.2, 90, 9)):
        facts = {RATE: rate, "prune.method": "l1_filter", "classifier.fine_tune.epochs": epochs}
        study.add("fine_tune", variant, around(score), facts)
    above = Statement(Side("fine_tune", extreme="largest"), Side("fine_tune", extreme="smallest"), ">", "", field=RATE)
    (found,) = study.judge(above)  # 90 after 9 epochs is no rate's doing
    assert (found.verdict, found.place) == (verdict, "variant = l / s")


def test_a_side_is_limited_to_values_of_a_setting():
    study = Study()
    for ratio in (0.3, 0.8):
        for method, score in (("l1_filter", 50), ("random", 50.2 if ratio < 0.5 else 40)):
            facts = {"prune.ratio": ratio, "prune.method": method}
            study.add("fine_tune", f"{method}{ratio}", around(score), facts)

    def of(method, only):
        return Side("fine_tune", methods=(method,), only=(only,))

    moderate, high = Only("prune.ratio", high=0.5), Only("prune.ratio", low=0.75)
    as_good = Statement(of("random", moderate), of("l1_filter", moderate), "≥", "")
    better = Statement(of("l1_filter", high), of("random", high), ">", "")
    assert study.verdicts(as_good) == study.verdicts(better) == ["supported"]
    assert study.verdicts(Statement(of("random", high), of("l1_filter", high), "≥", "")) == ["contradicted"]
    assert as_good.text.startswith("fine_tune (random, prune.ratio ≤ 0.5) ≥ ")
    assert not moderate.fits(None) and Only("classifier.arch", values=("vgg",)).fits("vgg16_slim")


def test_variants_that_differ_in_another_setting_or_recorded_none_are_not_compared():
    of = {m: Side("fine_tune", methods=(m,)) for m in ("l1_filter", "random")}
    statement = Statement(of["random"], of["l1_filter"], "≥", "")
    for epochs, n in ((10, 1), (20, 0)):
        study = Study().add("fine_tune", "a", around(50), {"prune.method": "random", "classifier.train.epochs": 10})
        study.add("fine_tune", "b", around(50), {"prune.method": "l1_filter", "classifier.train.epochs": epochs})
        assert len(study.judge(statement)) == n
    study = Study().add("scratch_e", "a", around(50)).add("fine_tune", "b", around(50))
    assert study.judge(Statement(Side("scratch_e"), Side("fine_tune"), "≥", "")) == []


@pytest.mark.parametrize(("latency", "verdict"), [(1.5, "supported"), (0.2, "contradicted")])
def test_savings_are_against_the_unpruned_network(latency, verdict):
    study = Study()
    study.add("unpruned", "v", around(50), macs=[100] * 3).add("scratch_e", "v", around(50), macs=[50, 51, 50])
    timed = [2.0] * 3 + [latency, latency, 1.01 * latency]
    study.rows = [replace(row, latency_ms=ms) for row, ms in zip(study.rows, timed, strict=True)]
    statement = Statement(Side("scratch_e", "MACs saved"), Side("scratch_e", "latency saved"), ">", "")
    sources = Sources(group_routes(study.rows), {}, RunFiles(Path()))
    (found,) = study.judge(statement, sources=sources)
    assert found.verdict == verdict
    assert statement.text == "scratch_e: MACs saved > latency saved"
    assert study.judge(statement) == []  # without sources there is no such measure


def test_opposites_stand_together():
    for topic in TOPICS.values():
        assert len({(s.text, s.scope, s.data) for s in topic.statements}) == len(topic.statements)
    study = Study().add("a", "v", around(50)).add("b", "v", around(51)).add("c", "v", around(52))
    first = Statement(Side("a"), Side("b"), ">", "one", group="order")
    other = Statement(Side("a"), Side("c"), ">", "between")
    opposite = Statement(Side("b"), Side("a"), "≥", "two", group="order")
    topic = replace(CLASSIFICATION, statements=(first, other, opposite))
    routes = group_routes(study.rows)
    found = findings(routes, topic, Differences(routes, "top1"), Margin(1.0, "a test"))
    assert [each.statement.source for each in found] == ["one", "two", "between"]
    assert [each.verdict for each in found] == ["contradicted", "supported", "contradicted"]


def test_the_list_has_every_statement_and_names_configs_that_there_are():
    lines = listing().splitlines()
    statements = [s for topic in TOPICS.values() for s in topic.statements]
    assert len([line for line in lines if line.startswith("| ")]) == len(statements) + 2 * len(TOPICS)
    for name in {name for statement in statements for name in statement.runs}:
        assert read_yaml(CONFIGS / f"{name}.yaml")["name"] == name
    kept = Path(__file__).parents[3] / "docs" / "statements.md"
    assert kept.read_text(encoding="utf-8").strip() == listing().strip()


def fabricated(tmp_path):
    comparison = Comparison.from_json(fabricate_classification(tmp_path, variants=("l1", "weights")))
    routes = group_routes(comparison.rows)
    return comparison, routes, Sources(routes, comparison.stages, RunFiles(tmp_path))


def test_measures_are_read_from_the_runs(tmp_path):
    """Kept 8 of 16, 16 of 32, 32 of 64: no spread. Weights are the same for all seeds of a variant."""
    _, routes, sources = fabricated(tmp_path)
    by_label = {route.label: route for route in routes}
    tuned = by_label["fine_tune (variant = l1)"]
    assert by_seed(tuned, "spread of the layers' kept shares", sources) == {0: 0.0, 1: 0.0, 2: 0.0}
    near_zero = by_seed(by_label["unpruned"], "weights near zero", sources)
    assert near_zero.keys() == {0, 1, 2} and all(5 < share < 15 for share in near_zero.values())
    assert by_seed(tuned, "top1", None) == tuned.by_seed("top1")
    assert by_seed(tuned, "spread of the layers' kept shares", None) == {}


def test_the_distance_from_the_start_is_that_of_the_seed_s_own_start(tmp_path):
    comparison, routes, sources = fabricated(tmp_path)
    (dense,) = (route for route in routes if route.name == "unpruned")
    for row in dense.rows:
        comparison.stages[row.chain[0].run].result["settings"] |= {"regime": "base", "arch_options": OPTIONS}
        torch.manual_seed(row.seed)
        start = build(ARCH, CLASSES, OPTIONS).state_dict()
        moved = {name: tensor * (1.5 if tensor.dim() > 1 else 1.0) for name, tensor in start.items()}
        save_file(moved, tmp_path / row.chain[0].run / "weights.safetensors")
    found = by_seed(dense, "distance from the start", sources)
    assert found == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5})
    (tuned,) = (route for route in routes if route.label == "fine_tune (variant = l1)")
    assert by_seed(tuned, "distance from the start", sources) == {}


def test_the_same_runs_at_two_points_are_one_statement():
    recipe, apart = [50.0, 51.0, 52.0], [50.0, 51.0, 52.5]
    study = Study()
    for variant, scores in (("recipe", recipe), ("tuned", recipe), ("another", apart)):
        study.add("fine_tune", variant, around(40)).add("scratch_e", variant, scores)
    found = study.judge(Statement(Side("scratch_e"), Side("fine_tune"), ">", ""))
    assert [finding.place for finding in found] == ["variant = recipe", "variant = another"]


def test_rare_classes_are_those_of_few_boxes_in_training():
    boxes = {"common": 700, "usual": 260, "rare": 30, "scarce": 10}  # on average 250
    rows = []
    for route, lost in (("unpruned", 0), ("transfer_then_prune", 10)):
        for seed in range(2):
            scores = {"common": 50.0, "usual": 50.0, "rare": 40.0 - lost, "scarce": 20.0 - lost}
            (row,) = [a_row(route, seed, [a_step("train_detector", f"{route}{seed}")], AP=40.0)]
            rows.append(replace(row, measured=replace(row.measured, per_class=scores)))
    stages = {
        step.run: StageResult("train_detector", "", {"data": {"per_class": boxes}}) for r in rows for step in r.chain
    }
    routes = group_routes(rows)
    found = by_seed(routes[1], "AP lost on rare classes", Sources(routes, stages, RunFiles(Path())))
    assert found == pytest.approx({0: 100 / 3, 1: 100 / 3})  # 20 of (40 + 20)
    alike = {run: StageResult("train_detector", "", {"data": {"per_class": dict.fromkeys(boxes, 9)}}) for run in stages}
    assert by_seed(routes[1], "AP lost on rare classes", Sources(routes, alike, RunFiles(Path()))) == {}


@pytest.mark.parametrize(
    ("small", "verdict"), [([20.0, 20.5, 19.5], "supported"), ([29.7, 29.6, 29.8], "contradicted")]
)
def test_small_objects_lose_more_in_proportion(small, verdict):
    rows = []
    for route, score, of_small in (("unpruned", 50.0, [30.0, 30.0, 30.0]), ("transfer_then_prune", 45.0, small)):
        rows += [a_row(route, seed, [], AP=score, APs=found) for seed, found in enumerate(of_small)]
    routes = group_routes(rows)
    lost = (Side("transfer_then_prune", measure) for measure in ("AP lost on small objects", "AP lost"))
    topic = replace(TOPICS["detection"], statements=(Statement(*lost, ">", ""),))
    sources = Sources(routes, {}, RunFiles(Path()))
    (found,) = findings(routes, topic, Differences(routes, "AP"), Margin(1.0, "a test"), sources=sources)
    assert found.verdict == verdict
    assert "against 10.0 %" in found.evidence
