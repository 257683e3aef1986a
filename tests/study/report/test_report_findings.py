"""The answer in words, the verdicts on the literature, and the warnings."""

from types import SimpleNamespace

import pytest
from support.fabricated_study import a_row, a_step, fabricate, with_grid

from study.report.answers import Answer, answers, overall, seed_warning
from study.report.claims.judge import Margin, _judge, _Test, direction, findings
from study.report.claims.statement import Side, Statement
from study.report.differences import Differences
from study.report.provenance import warnings
from study.report.routes import find_route, full_points, group_routes, looks
from study.report.rows import Comparison, Missing
from study.report.statistics.families import Difference
from study.report.statistics.simultaneous import StudentT
from study.report.topic import DETECTION


def routes_of(scores: dict[str, list[float | None]], point: dict | None = None):
    """Routes with the given AP of seeds 0, 1, ...; all but `unpruned` have a pruning stage."""
    chains = {name: [] if name == "unpruned" else [a_step("prune", "prune-a")] for name in scores}
    return group_routes(
        a_row(name, seed, chains[name], point, AP=value)
        for name, values in scores.items()
        for seed, value in enumerate(values)
    )


def answered(routes):
    return answers(Differences(routes, "AP"), DETECTION)


def judged(routes, margin=1.0):
    return findings(routes, DETECTION, Differences(routes, "AP"), Margin(margin, "a test"))


def test_the_first_sentence_names_no_winner_that_the_intervals_do_not():
    # unpruned is higher and not a candidate; two pruned routes are one pair: differences 1 and 3, 2 ± 12.706
    routes = routes_of({"unpruned": [70, 70], "prune_then_transfer": [61, 63], "scratch_b": [60, 60]})
    (answer,) = answered(routes)
    assert answer.sentence.startswith(
        "No route is shown to be best among the pruned routes; the highest mean is prune_then_transfer: 62.0 AP, "
        "+2.0 [−10.7, 14.7] over scratch_b, the next, n = 2. A lead of "
    )
    assert answer.sentence.endswith(" AP would have been shown with a probability of 80 %.")
    assert answer.detail.startswith("prune_then_transfer against unpruned: −8.0 AP [−")
    assert answer.detail.endswith(" would be).")  # two seeds show little


def test_a_winner_is_named_when_it_is_shown_above_every_other_pruned_route():
    steady = {"unpruned": [70, 71, 70], "a": [62, 63, 62.1], "b": [60, 61, 60], "c": [58, 59.1, 58]}
    (answer,) = answered(routes_of(steady))
    assert answer.sentence.startswith("a is shown to be best among the pruned routes: 62.4 AP, +2.0 [1.")
    close = steady | {"b": [62, 62.9, 62.1]}
    (answer,) = answered(routes_of(close))
    assert answer.sentence.startswith("No route is shown to be best among the pruned routes; the highest mean is a: ")
    assert " a is shown to be above c. A lead of 0." in answer.sentence


def test_the_answer_of_one_seed_claims_no_interval():
    (answer,) = answered(routes_of({"scratch_e": [61.0], "scratch_b": [60.0]}))
    assert answer.sentence.endswith("scratch_e: 61.0 AP, +1.0 (one seed: no interval) over scratch_b, the next, n = 1.")


def test_users_own_routes_are_ranked_as_well():
    (answer,) = answered(routes_of({"mine": [50.0, 50.5], "yours": [51.0, 51.5]}))
    assert answer.sentence.startswith(
        "yours is shown to be best among the pruned routes: 51.2 AP, +1.0 [1.0, 1.0] over mine"
    )
    assert answer.detail == ""


def test_no_result_is_said():
    (answer,) = answered(routes_of({"scratch_e": [None], "scratch_b": [None]}))
    assert answer.sentence == "No route has a result yet: there is nothing to compare."
    assert answered([])[0].sentence == answer.sentence


def test_a_single_pruned_route_is_not_called_best():
    (answer,) = answered(routes_of({"unpruned": [63.0, 64.0], "scratch_e": [61.0, 61.0]}))
    assert answer.sentence == "scratch_e is the only one of the pruned routes with a result: 61.0 AP, n = 2 seeds."


def test_every_grid_point_has_its_answer_paired_within_it(tmp_path):
    comparison = Comparison.from_json(with_grid(fabricate(tmp_path, files=False), loss=4.0))
    first, second = answered(group_routes(comparison.rows))
    assert (first.place, second.place) == ("prune.ratio = 0.5", "prune.ratio = 0.7")
    assert "61.2 AP" in first.sentence and "57.2 AP" in second.sentence
    assert "−1.8 AP" in first.detail and "−5.8 AP" in second.detail  # unpruned stays at 63.0


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        (["a", "", "b", "a"], "No route is shown to be best at 1 of the 4 grid points, each by itself; "
         "shown to be best: a at 2 and b at 1."),
        (["", ""], "No route is shown to be best at any of the 2 grid points, each by itself."),
        (["a", "a"], "Shown to be best at the 2 grid points, each by itself: a at 2."),
        (["a"], ""),
    ],
)  # fmt: skip
def test_many_grid_points_are_counted_in_one_sentence(best, sentence):
    alone = Answer("ratio = 0", "a is the only one", routes=1)  # compares nothing
    several = [Answer(f"ratio = {k}", "", routes=2, best=name) for k, name in enumerate(best, start=1)]
    assert overall([alone, *several]) == sentence


def test_an_answer_says_which_route_is_shown_to_be_best():
    steady = {"unpruned": [70, 71, 70], "a": [62, 63, 62.1], "b": [60, 61, 60]}
    (first,) = answered(routes_of(steady))
    (second,) = answered(routes_of(steady | {"b": [62, 62.9, 62.1]}))
    (third,) = answered(routes_of({"unpruned": [63.0, 64.0], "a": [61.0, 61.0]}))
    assert [(found.routes, found.best) for found in (first, second, third)] == [(2, "a"), (2, ""), (1, "")]


def test_a_reference_without_a_result_is_not_replaced_by_that_of_another_point():
    """Two variants share their unpruned network, the third has a larger one, whose training failed."""
    places = [{"variant": name} for name in ("l1", "random", "wide")]
    rows = [a_row("unpruned", seed, [], {}, AP=60.0) for seed in (0, 1)]
    rows += [a_row("scratch_e", seed, [], place, AP=50.0 + seed) for place in places for seed in (0, 1)]
    lost = [Missing("unpruned", seed, {"variant": "wide"}, "it failed") for seed in (0, 1)]
    routes = group_routes(rows, lost)
    assert [find_route(routes, "unpruned", place) for place in places] == [routes[0], routes[0], None]
    assert Differences(routes, "AP").to(routes[3], "unpruned") is None
    # with one of its seeds it is there
    rows.append(a_row("unpruned", 0, [], {"variant": "wide"}, AP=70.0))
    assert find_route(group_routes(rows, lost[1:]), "unpruned", places[2]).mean("AP") == 70.0


def test_a_route_outside_the_grid_is_the_reference_at_every_point():
    routes = [*routes_of({"unpruned": [63.0, 64.0]})]
    for ratio in (0.5, 0.7):
        routes += routes_of({"scratch_e": [61.0, 61.0]}, {"prune.ratio": ratio})
    assert full_points(routes) == [{"prune.ratio": 0.5}, {"prune.ratio": 0.7}]
    assert find_route(routes, "unpruned", {"prune.ratio": 0.7}) is routes[0]
    assert find_route(routes, "scratch_e", {"prune.ratio": 0.9}) is None
    assert [answer.place for answer in answered(routes)] == ["prune.ratio = 0.5", "prune.ratio = 0.7"]


def estimated(estimate, error, df=10):
    """A difference with this standard error."""
    null = StudentT(df)
    t = abs(estimate) / error if error else float("inf") if estimate else 0.0
    return Difference("a", "b", estimate, 3, df, "", error=error, p_alone=null.p(t), null=null)


@pytest.mark.parametrize(
    ("estimate", "error", "relation", "expected"),
    [
        (1.0, 0.4, ">", "supported"),  # t = 2.5, 2.23 is needed
        (1.0, 0.5, ">", "undecided"),
        (-1.0, 0.4, ">", "contradicted"),
        (0.0, 0.0, ">", "undecided"),  # equal in every seed: nothing shows that it is above, nor that it is below
        (0.0, 0.0, "≥", "supported"),
        (-0.2, 0.4, "≥", "supported"),  # 0.8 above -1: t = 2, one-sided 1.81 is needed
        (-0.4, 0.4, "≥", "undecided"),
        (-2.0, 0.5, "≥", "contradicted"),  # 1 below -1
        (0.2, 0.4, "≈", "supported"),
        (0.4, 0.4, "≈", "undecided"),
        (2.0, 0.4, "≈", "contradicted"),  # 1 above 1: t = 2.5
        (-2.0, 0.4, "≈", "contradicted"),
        (2.0, 0.5, "≈", "undecided"),  # outside on either side: t = 2, 2.23 is needed
    ],
)
def test_verdicts_need_their_p_value(estimate, error, relation, expected):
    verdict, p = direction(estimated(estimate, error), relation, 1.0)
    assert (verdict if p <= 0.05 else "undecided") == expected


@pytest.mark.parametrize("relation", [">", "≥", "≈"])
@pytest.mark.parametrize("estimate", [-3.0, -2.0, -1.2, -0.4, 0.0, 0.3, 0.9, 1.1, 1.8, 2.0, 2.05, 3.0])
def test_the_interval_beside_a_verdict_leaves_out_its_bound_exactly_where_it_is_decided(estimate, relation):
    statement, margin = Statement(Side("a"), Side("b"), relation, ""), 1.0
    difference = estimated(estimate, 0.5)
    test = _Test(difference, *direction(difference, relation, margin), (1.0, 2.0))
    finding = _judge(statement, SimpleNamespace(place="", better=("a",)), test, 2 * test.p, DETECTION)
    low, high = finding.difference.low, finding.difference.high
    beyond = {">": low > 0 or high < 0, "≥": low > -1 or high < -1, "≈": low > 1 or high < -1 or -1 < low < high < 1}
    assert (finding.verdict != "undecided") == beyond[relation]


def test_statements_are_judged_with_their_numbers():
    scores = {
        "unpruned": [64.0, 65.0, 64.0],
        "prune_then_transfer": [61.0, 62.0, 61.0],
        "scratch_e": [63.0, 64.1, 63.0],
        "scratch_b": [59.0, 60.1, 59.0],
        "transfer_then_prune": [61.5, 61.0, 61.0],
        "detect_from_scratch": [50.0, 51.1, 50.0],
    }
    found = {f.statement.text: f for f in judged(routes_of(scores), margin=0.5)}
    assert {text: f.verdict for text, f in found.items()} == {
        "scratch_e ≥ prune_then_transfer": "supported",
        "scratch_b ≥ prune_then_transfer": "contradicted",
        "prune_then_transfer > transfer_then_prune": "undecided",
        "transfer_then_prune ≥ prune_then_transfer": "undecided",  # its opposite stands beside it
        "unpruned > detect_from_scratch": "supported",
    }
    lower = found["scratch_b ≥ prune_then_transfer"]
    assert lower.evidence.startswith("59.4 against 61.3 AP: −2.0 [−2.")
    assert lower.evidence.endswith(", n = 3, p < 0.001")
    assert "; a difference of " in found["prune_then_transfer > transfer_then_prune"].evidence


def test_many_statements_make_each_harder_to_decide():
    """What is decided alone is not, beside a second statement as weak: both p-values are doubled (Holm)."""
    scores = {"prune_then_transfer": [50.0, 50.0, 50.1], "scratch_e": [51.0, 52.4, 51.9]}
    (single,) = judged(routes_of(scores))
    both = judged(routes_of(scores | {"scratch_b": [51.1, 52.3, 51.9]}))
    assert (single.verdict, [f.verdict for f in both]) == ("supported", ["supported", "supported"])
    alone = [direction(f.difference, f.statement.relation, 1.0)[1] for f in both]
    assert min(f.p for f in both) == pytest.approx(2 * min(alone))
    assert all(p < f.p for p, f in zip(alone, both, strict=True))


def test_statements_about_absent_routes_are_left_out():
    assert judged(routes_of({"mine": [1.0, 2.0], "scratch_e": [1.0, 2.0]})) == []


@pytest.mark.parametrize(("n", "says"), [(1, "one seed"), (2, "Two seeds are few"), (3, "")])
def test_few_seeds_are_warned_of(n, says):
    text = seed_warning(Differences(routes_of({"scratch_e": [61.0] * n, "unpruned": [62.0] * 3}), "AP"), DETECTION)
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


def test_trainings_in_different_numbers_of_processes_are_warned_of(tmp_path):
    content = fabricate(tmp_path, files=False)
    trained = [stage["result"] for stage in content["stages"].values() if stage["kind"] == "train_detector"]
    for result in trained:
        result["processes"] = 4
    assert warnings(Comparison.from_json(content)) == []  # one kind may have more than another
    del trained[0]["processes"]
    (message,) = warnings(Comparison.from_json(content))
    assert message.startswith(
        "The trainings of kind train_detector ran in different numbers of processes"
        f" (1 in 1, {len(trained) - 1} in 4): "
    )


def test_each_name_has_one_colour_and_the_known_ones_keep_theirs():
    alone, with_others = looks(["scratch_b"]), looks(["mine", "yours", "scratch_b"])
    assert alone["scratch_b"] == with_others["scratch_b"]
    assert len(set(with_others.values())) == 3


@pytest.mark.parametrize("spread", [0.2, 0.9, 1.2, 1.6, 2.5, 6.0])
def test_the_interval_beside_a_verdict_is_the_one_that_decides_it(spread):
    """Also where the verdict falls and the interval for all pairs of routes, which is wider, does not leave out 0."""
    swing = [spread, -spread, 0.0, spread / 2, -spread / 2]
    scores = {name: [level + s for s in swing] for name, level in (("unpruned", 60.0), ("detect_from_scratch", 58.5))}
    scores["detect_from_scratch"].reverse()
    scores["prune_then_transfer"] = [57.0 + s for s in swing]
    scores["transfer_then_prune"] = [56.0 - s for s in swing]
    found = judged(routes_of(scores))
    bounds = {">": 0.0, "≥": -1.0}
    assert [each.statement.relation for each in found] == [">", "≥", ">"]
    for each in found:
        bound = bounds[each.statement.relation]
        assert (each.verdict == "supported") == (each.difference.low > bound), each
        assert (each.verdict == "contradicted") == (each.difference.high < bound), each
