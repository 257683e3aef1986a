"""The report of a classification study: the table, the verdicts by kind of pruning, published numbers, the page."""

import csv
from dataclasses import replace

import pytest
from support.fabricated_classification import fabricate_classification

from study.report.answers import answers
from study.report.claims.judge import findings, margin_of, rule
from study.report.claims.pruned_by import PrunedBy, pruned_by
from study.report.claims.statement import AUTOMATIC, PREDEFINED, UNSTRUCTURED
from study.report.differences import Differences
from study.report.routes import group_routes, joint_label, point_fields, short_place
from study.report.rows import Comparison
from study.report.tables import comparison_csv, main_table
from study.report.topic import CLASSIFICATION, topic_of
from study.report.write import write_report


def fabricated(runs, **options):
    return Comparison.from_json(fabricate_classification(runs, **options))


def verdicts(comparison, runs, data="cifar10"):
    """(place, statement) -> verdict."""
    routes = group_routes(comparison.rows)
    found = judged(routes, comparison, pruned_by(routes, comparison.stages, runs), data)
    return {(f.place, f.statement.text): f.verdict for f in found}


def judged(routes, comparison, pruned, data="cifar10"):
    margin = margin_of(comparison, CLASSIFICATION)
    return findings(routes, CLASSIFICATION, Differences(routes, "top1"), margin, pruned, data)


def test_a_comparison_is_of_one_of_the_known_tasks(tmp_path):
    comparison = fabricated(tmp_path, files=False)
    assert topic_of(comparison) is CLASSIFICATION
    with pytest.raises(ValueError, match="unknown task 'poetry' in a comparison; known: detection, classification"):
        topic_of(replace(comparison, task="poetry"))


def test_csv_has_the_variant_before_the_grid(tmp_path):
    comparison = fabricated(tmp_path, grid={"prune.ratio": [0.5, 0.8]}, files=False)
    rows = list(csv.DictReader(comparison_csv(comparison).splitlines()))
    assert list(rows[0])[:5] == ["pipeline", "variant", "prune.ratio", "seed", "top1"]
    assert (rows[0]["pipeline"], rows[0]["variant"], rows[0]["top1"], rows[0]["pruned_top1"]) == (
        *("unpruned", "", "90.0"),
        "",
    )
    assert len(rows) == 3 + 3 * 2 * 5 * 3


def test_the_table_has_accuracies_costs_and_what_pruning_left(tmp_path):
    routes = group_routes(fabricated(tmp_path, files=False).rows)
    table = main_table(routes, ["variant"], CLASSIFICATION, Differences(routes, "top1"))
    dense, tuned = table.lines[0], next(line for line in table.lines if line.route.name == "fine_tune")
    cells = dict(zip(table.columns, tuned.cells, strict=True))
    assert cells["top-1 (%)"].text == "89.75" and cells["top-1 (%)"].notes == ("± 0.25 (n = 3)",)
    assert cells["right after pruning (%)"].text == "41.00"
    assert cells["then recalibrated (%)"].text == "62.00"
    assert (cells["MACs"].text, cells["MACs"].notes) == ("9.00 M", ("75 %",))
    assert cells["Δ top-1 (%) to unpruned"].text == "−0.45"
    assert dict(zip(table.columns, dense.cells, strict=True))["right after pruning (%)"].text == "–"


def test_columns_of_what_was_never_measured_are_left_out(tmp_path):
    content = fabricate_classification(tmp_path, files=False)
    for row in content["rows"]:
        row.pop("pruned_top1", None)
    routes = group_routes(Comparison.from_json(content).rows)
    table = main_table(routes, ["variant"], CLASSIFICATION, Differences(routes, "top1"))
    assert "right after pruning (%)" not in table.columns


def test_the_answer_is_given_for_each_variant(tmp_path):
    found = answers(Differences(group_routes(fabricated(tmp_path, files=False).rows), "top1"), CLASSIFICATION)
    assert [answer.place for answer in found] == ["variant = l1", "variant = slim", "variant = weights"]
    assert found[0].sentence.startswith(
        "scratch_b is shown to be best among the pruned routes: 90.25 % top-1, +0.40 [0.40, 0.40]"
    )
    assert "with 75 % of the MACs" in found[0].detail and " of unpruned." in found[0].detail


def test_the_kind_of_pruning_comes_from_settings_and_masks(tmp_path):
    comparison = fabricated(tmp_path, seeds=(0,))
    routes = group_routes(comparison.rows)
    found = pruned_by(routes, comparison.stages, tmp_path)
    kinds = {route.point["variant"]: found[route.label].kind for route in routes if route.name == "fine_tune"}
    assert kinds == {"l1": PREDEFINED, "slim": AUTOMATIC, "weights": UNSTRUCTURED}
    assert found["unpruned"] == PrunedBy(arch="cifar_resnet", facts={"classifier.arch": "cifar_resnet"})
    prune = next(stage for stage in comparison.stages.values() if stage.kind == "prune")
    prune.result["settings"]["selection"]["level"] = "global"  # the method now finds each layer's share
    assert pruned_by(routes, comparison.stages, tmp_path)["fine_tune (variant = l1)"].kind == AUTOMATIC


def test_a_pruning_by_target_has_no_ratio_to_be_judged_by(tmp_path):
    comparison = fabricated(tmp_path, seeds=(0,), variants=("l1",))
    for stage in comparison.stages.values():
        if stage.kind == "prune":
            stage.result["settings"]["selection"] |= {"target_macs": 0.25, "target_params": None}
    found = pruned_by(group_routes(comparison.rows), comparison.stages, tmp_path)["fine_tune (variant = l1)"]
    assert found.facts["prune.target_macs"] == 0.25 and "prune.ratio" not in found.facts and found.ratios == ()


def test_each_kind_of_pruning_has_its_own_statements(tmp_path):
    found = verdicts(fabricated(tmp_path), tmp_path)
    assert found["variant = l1", "scratch_b ≥ fine_tune"] == "supported"  # +0.5 in each seed
    assert found["variant = slim", "scratch_e ≈ fine_tune"] == "supported"  # -0.1 in each seed
    assert found["variant = weights", "scratch_e ≈ fine_tune"] == "contradicted"  # -0.9 in each seed
    assert found["variant = weights", "scratch_b ≥ fine_tune"] == "supported"  # -0.3: no worse than half a point
    assert ("variant = l1", "scratch_e ≈ fine_tune") not in found
    assert found["variant = l1", "fine_tune: recalibrated_top1 > pruned_top1"] == "supported"  # 20, 21, 22 more


def test_single_weights_are_said_to_differ_on_imagenet(tmp_path):
    comparison = fabricated(tmp_path, variants=("weights",), dataset="imagenet")
    found = verdicts(comparison, tmp_path, data="imagenet")
    assert found["variant = weights", "fine_tune > scratch_b"] == "supported"  # +0.3 in each seed
    assert ("variant = weights", "scratch_b ≥ fine_tune") not in found


def test_tickets_are_judged_at_both_rates(tmp_path):
    grid = {"classifier.train.lr": [0.1, 0.01]}
    found = verdicts(fabricated(tmp_path, variants=("weights",), grid=grid), tmp_path)
    small, large = (f"variant = weights, classifier.train.lr = {rate}" for rate in (0.01, 0.1))
    ticket, random = "ticket ({} classifier.train.lr)", "scratch_e ({} classifier.train.lr)"
    assert found[small, f"{ticket.format('smallest')} > {random.format('smallest')}"] == "supported"
    assert found[large, f"{random.format('largest')} ≥ {ticket.format('largest')}"] == "supported"
    assert found["variant = weights", f"{random.format('largest')} > {ticket.format('smallest')}"] == "supported"


def test_tickets_are_judged_where_variants_give_the_rates(tmp_path):
    """`slim` stands for `weights` at the small rate; tickets have 0.1 less than random weights, in each seed."""
    comparison = fabricated(tmp_path)
    routes = group_routes(comparison.rows)
    told = pruned_by(routes, comparison.stages, tmp_path)

    def at(label, how, **also):
        rate = {"classifier.train.lr": 0.01 if "slim" in label else 0.1}
        return replace(how, facts={**how.facts, **rate, **also})

    rates = {label: at(label, how) for label, how in told.items()}
    alike = {
        k: replace(at(k, h, **{"prune.method": "magnitude"}), method="magnitude", kind=UNSTRUCTURED)
        if "slim" in k
        else h
        for k, h in rates.items()
    }
    ticket, random = "ticket ({} classifier.train.lr)", "scratch_e ({} classifier.train.lr)"
    at_small = f"{ticket.format('smallest')} > {random.format('smallest')}"
    at_large = f"{random.format('largest')} ≥ {ticket.format('largest')}"
    across = f"{random.format('largest')} > {ticket.format('smallest')}"

    def by_place(pruned):
        return {(f.place, f.statement.text): f.verdict for f in judged(routes, comparison, pruned)}

    found = by_place(alike)
    assert found["variant = slim", at_small] == "contradicted"
    assert found["variant = weights", at_large] == "supported"
    assert ("variant = l1", at_large) not in found  # there is no small rate for networks of its method
    assert ("variant = weights / slim", across) in found
    assert not [place for place, statement in by_place(rates) if statement == across]  # networks of another method
    assert not [place for place, statement in by_place(told) if "ticket" in statement]  # no rates recorded


def test_one_rate_decides_nothing_about_tickets(tmp_path):
    comparison = fabricated(tmp_path, variants=("weights",), grid={"classifier.train.lr": [0.1]})
    assert not [statement for _, statement in verdicts(comparison, tmp_path) if "ticket" in statement]


@pytest.mark.parametrize(("macs", "compared"), [(1.04, True), (1.06, False)])
def test_guided_designs_meet_controls_of_equal_cost_only(tmp_path, macs, compared):
    content = fabricate_classification(tmp_path, variants=("l1", "slim"))
    method = {"l1": "guided", "slim": "uniform"}
    for row in content["rows"]:
        if row["point"]:
            row["macs"] = 1_000_000 * (macs if row["point"]["variant"] == "l1" else 1)
            prune = content["stages"][row["chain"][1]["run"]]
            prune["result"]["settings"]["method"] = method[row["point"]["variant"]]
    found = verdicts(Comparison.from_json(content), tmp_path)
    assert (("variant = l1 / slim", "scratch_e (guided) ≥ scratch_e (uniform) at equal macs") in found) is compared


def test_the_margin_is_half_a_point_unless_the_config_states_one(tmp_path):
    comparison = fabricated(tmp_path, files=False)
    usual = margin_of(comparison, CLASSIFICATION)
    assert usual.points == 0.5
    assert "−0.5 points (≥)" in rule(usual, CLASSIFICATION) and usual.reason in rule(usual, CLASSIFICATION)
    stated = replace(comparison, config={**comparison.config, "evaluate": {"margin": 0.2}})
    assert margin_of(stated, CLASSIFICATION).points == 0.2
    assert "stated before the run" in margin_of(stated, CLASSIFICATION).reason


def test_routes_are_named_together_by_grid_point(tmp_path):
    comparison = fabricated(tmp_path, variants=("l1",), files=False)
    dense, *others = group_routes(comparison.rows)
    assert joint_label([dense, *others[:2]]) == "unpruned; pruned + fine_tune (variant = l1)"
    assert joint_label(others) == "5 routes (variant = l1)"
    assert short_place({"variant": "l1", "prune.ratio": 0.5}) == "l1, ratio = 0.5"
    rates = {"classifier.train.lr": 0.1, "detector.train.lr": 0.02}
    assert short_place(rates) == "classifier.train.lr = 0.1, detector.train.lr = 0.02"
    assert point_fields(comparison) == ["variant"]


def test_the_page_has_the_analyses_and_nothing_of_detection(tmp_path, monkeypatch):
    monkeypatch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")
    comparison = fabricated(tmp_path, variants=("l1", "weights"), seeds=(0, 1))
    page = write_report(comparison, tmp_path, tmp_path / "photos").read_text()
    assert "routes to a pruned classifier" in page and "The same scenes" not in page and "AP by class" not in page
    for title in ("Right after pruning", "Weights left by position in the 3x3 kernels", "top-1 (%) against params"):
        assert title in page
    markdown = (tmp_path / "photos" / "report.md").read_text()
    assert "### Winning tickets against random re-initialisation" in markdown
    assert "Figures and learning curves" in markdown
