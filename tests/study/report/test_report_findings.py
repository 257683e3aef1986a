"""The answer in words, the verdicts on the literature, and the warnings."""

import pytest
from support.fabricated_study import a_row, a_step, fabricate, with_grid

from study.report.answers import answers, seed_warning
from study.report.claims.judge import findings, verdict
from study.report.provenance import warnings
from study.report.routes import colours, find_route, full_points, group_routes
from study.report.rows import Comparison
from study.report.stats import Difference
from study.report.topic import DETECTION


def routes_of(scores: dict[str, list[float | None]], point: dict | None = None):
    """Routes with the given AP of seeds 0, 1, ...; all but `unpruned` have a pruning stage."""
    chains = {name: [] if name == "unpruned" else [a_step("prune", "prune-a")] for name in scores}
    return group_routes(
        a_row(name, seed, chains[name], point, AP=value)
        for name, values in scores.items()
        for seed, value in enumerate(values)
    )


def test_the_answer_names_the_best_pruned_route_and_its_margin():
    # unpruned is higher and not a candidate; differences 1 and 3: 2 ± 12.706
    routes = routes_of({"unpruned": [70, 70], "prune_then_transfer": [61, 63], "scratch_b": [60, 60]})
    (answer,) = answers(routes, DETECTION)
    assert answer.sentence == (
        "prune_then_transfer is best among the pruned routes: 62.0 AP, +2.0 [−10.7, 14.7] over scratch_b: "
        "within noise, n = 2 seeds."
    )
    assert answer.detail == "Against unpruned: −8.0 AP [−20.7, 4.7], within noise."


def test_the_answer_of_one_seed_claims_no_interval():
    (answer,) = answers(routes_of({"scratch_e": [61.0], "scratch_b": [60.0]}), DETECTION)
    assert answer.sentence.endswith("+1.0 (one seed: no interval) over scratch_b: not decidable, n = 1 seed.")


def test_users_own_routes_are_ranked_as_well():
    (answer,) = answers(routes_of({"mine": [50.0, 50.5], "yours": [51.0, 51.5]}), DETECTION)
    assert answer.sentence.startswith("yours is best among the pruned routes: 51.2 AP, +1.0 [1.0, 1.0] over mine")
    assert answer.detail == ""


def test_no_result_is_said():
    (answer,) = answers(routes_of({"scratch_e": [None], "scratch_b": [None]}), DETECTION)
    assert answer.sentence == "No route has a result yet: there is nothing to compare."
    assert answers([], DETECTION)[0].sentence == answer.sentence


def test_a_single_pruned_route_is_not_called_best():
    (answer,) = answers(routes_of({"unpruned": [63.0, 64.0], "scratch_e": [61.0, 61.0]}), DETECTION)
    assert answer.sentence == "scratch_e is the only one of the pruned routes with a result: 61.0 AP, n = 2 seeds."


def test_every_grid_point_has_its_answer_paired_within_it(tmp_path):
    comparison = Comparison.from_json(with_grid(fabricate(tmp_path, files=False), loss=4.0))
    first, second = answers(group_routes(comparison.rows), DETECTION)
    assert (first.place, second.place) == ("prune.ratio = 0.5", "prune.ratio = 0.7")
    assert "61.2 AP" in first.sentence and "57.2 AP" in second.sentence
    assert "−1.8 AP" in first.detail and "−5.8 AP" in second.detail  # unpruned stays at 63.0


def test_a_route_outside_the_grid_is_the_reference_at_every_point():
    routes = [*routes_of({"unpruned": [63.0, 64.0]})]
    for ratio in (0.5, 0.7):
        routes += routes_of({"scratch_e": [61.0, 61.0]}, {"prune.ratio": ratio})
    assert full_points(routes) == [{"prune.ratio": 0.5}, {"prune.ratio": 0.7}]
    assert find_route(routes, "unpruned", {"prune.ratio": 0.7}) is routes[0]
    assert find_route(routes, "scratch_e", {"prune.ratio": 0.9}) is None
    assert [answer.place for answer in answers(routes, DETECTION)] == ["prune.ratio = 0.5", "prune.ratio = 0.7"]


@pytest.mark.parametrize(
    ("interval", "relation", "expected"),
    [
        ((0.2, 3.0), ">", "supported"),
        ((-0.4, 3.0), ">", "undecided"),
        ((-3.0, -0.1), ">", "contradicted"),
        ((0.0, 0.0), ">", "contradicted"),  # equal in every seed: not above ...
        ((0.0, 0.0), "≥", "supported"),  # ... and no lower
        (None, "≥", "undecided"),
    ],
)
def test_verdicts_need_the_whole_interval_on_one_side(interval, relation, expected):
    assert verdict(Difference(1.0, interval, 3), relation) == expected


def test_statements_are_judged_with_their_numbers():
    scores = {
        "unpruned": [64.0, 65.0, 64.0],
        "prune_then_transfer": [61.0, 62.0, 61.0],
        "scratch_e": [63.0, 64.1, 63.0],
        "scratch_b": [59.0, 60.1, 59.0],
        "transfer_then_prune": [61.5, 61.0, 61.0],
        "detect_from_scratch": [50.0, 51.1, 50.0],
    }
    found = {f.statement.text: f for f in findings(routes_of(scores), DETECTION)}
    assert {text: f.verdict for text, f in found.items()} == {
        "scratch_e ≥ prune_then_transfer": "supported",
        "scratch_b ≥ prune_then_transfer": "contradicted",
        "prune_then_transfer > transfer_then_prune": "undecided",
        "unpruned > detect_from_scratch": "supported",
    }
    # differences -2, -1.9, -2: mean -1.967, half width 4.3027 * 0.05774 / sqrt(3) = 0.143
    assert found["scratch_b ≥ prune_then_transfer"].evidence == "59.4 against 61.3 AP: −2.0 [−2.1, −1.8], n = 3"


def test_statements_about_absent_routes_are_left_out():
    assert findings(routes_of({"mine": [1.0, 2.0], "scratch_e": [1.0, 2.0]}), DETECTION) == []


@pytest.mark.parametrize(("n", "says"), [(1, "one seed"), (2, "12.7"), (3, "")])
def test_few_seeds_are_warned_of(n, says):
    text = seed_warning(routes_of({"scratch_e": [61.0] * n, "unpruned": [62.0] * 3}), DETECTION)
    assert says in text and bool(text) == bool(says)


def test_mixed_versions_and_a_dirty_tree_are_warned_of(tmp_path):
    content = fabricate(tmp_path, files=False)
    assert warnings(Comparison.from_json(content)) == []
    results = [stage["result"] for stage in content["stages"].values()]
    results[0]["versions"] = {"torch": "2.4.0"}
    results[1]["git"] = {"commit": "f" * 40, "dirty": True}
    mixed, code, dirty = warnings(Comparison.from_json(content))
    assert "2 different sets of versions" in mixed and "torch 2.4.0" in mixed
    assert "2 different states of the code" in code
    assert dirty.startswith(f"1 of {len(results)} stages ran on code with uncommitted changes")


def test_each_name_has_one_colour_and_the_known_ones_keep_theirs():
    alone, with_others = colours(["scratch_b"]), colours(["mine", "yours", "scratch_b"])
    assert alone["scratch_b"] == with_others["scratch_b"]
    assert len(set(with_others.values())) == 3
