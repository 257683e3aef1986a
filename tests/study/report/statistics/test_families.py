"""What the report gets: comparisons of a table, of all pairs, and over a grid."""

import math

import numpy as np
import pytest

from study.report.statistics.equivalence import Verdict
from study.report.statistics.families import against, all_pairs
from study.report.statistics.grid import over_grid
from study.report.statistics.simulated import TABLES
from study.report.statistics.simultaneous import Dunnett, Range, StudentT


def table(routes="abcdef", seeds=3, seed=0, **shift):
    random = np.random.default_rng(seed)
    return {r: {s: 50 + 3 * s + shift.get(r, 0.0) + random.normal() for s in range(seeds)} for r in routes}


def test_two_routes_are_a_paired_t():
    # differences 1, 2, 3: deviation 1, t(0.975, 2) = 4.302653
    result = against({"a": {0: 11.0, 1: 22.0, 2: 33.0}, "b": {0: 10.0, 1: 20.0, 2: 30.0}}, "b")
    (pair,) = result.pairs
    half = 4.302653 / math.sqrt(3)
    assert (pair.route, pair.reference, pair.estimate, pair.n, pair.df) == ("a", "b", 2.0, 3, 2)
    assert (pair.low, pair.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert pair.p == pair.p_alone == pytest.approx(0.0742, abs=1e-4)
    assert not pair.shown
    assert pair.method == "paired t"


def test_against_a_reference_of_six_routes():
    result = against(table(b=9.0), "a")
    assert [(pair.route, pair.reference) for pair in result.pairs] == [(r, "a") for r in "bcdef"]
    assert all((pair.n, pair.df, pair.method) == (3, 10, "pooled") for pair in result.pairs)
    assert [pair.route for pair in result.pairs if pair.shown] == ["b"]
    for pair in result.pairs:
        assert (pair.low + pair.high) / 2 == pytest.approx(pair.estimate)
        assert pair.p_alone < pair.p or pair.p == 1 / TABLES
        assert pair.shown == (pair.p < 0.05)
        assert pair.detectable > (pair.high - pair.low) / 2


def test_estimates_are_differences_of_means_without_holes():
    values = table()
    means = {route: np.mean(list(row.values())) for route, row in values.items()}
    for pair in all_pairs(values).pairs:
        assert pair.estimate == pytest.approx(means[pair.route] - means[pair.reference])


def test_all_pairs_are_a_larger_family():
    values = table()
    one = {pair.route: pair for pair in against(values, "a").pairs}
    many = all_pairs(values).pairs
    assert len(many) == 15
    assert many[0].high - many[0].low > one["b"].high - one["b"].low


def test_adding_a_seed_effect_changes_nothing():
    values = table()
    moved = {route: {s: v + 100 * s for s, v in row.items()} for route, row in values.items()}
    for before, after in zip(against(values, "a").pairs, against(moved, "a").pairs, strict=True):
        assert (after.estimate, after.low, after.p) == pytest.approx((before.estimate, before.low, before.p))


def test_an_odd_route_is_named_and_stays_out_of_the_others_intervals():
    values = table()
    values["f"] = {s: 50 + 60.0 * (-1) ** s for s in range(3)}
    result = against(values, "a")
    assert result.odd == ("f",)
    *others, odd = result.pairs
    assert odd.method == "own spread"
    assert odd.df == 2
    difference = np.array([values["f"][s] - values["a"][s] for s in range(3)])
    half = StudentT(2, 5).quantile(0.95) * difference.std(ddof=1) / math.sqrt(3)
    assert (odd.high - odd.low) / 2 == pytest.approx(half)
    alone = against({route: values[route] for route in "abcde"}, "a")
    for pair, same in zip(others, alone.pairs, strict=True):
        assert pair.df == 8
        assert pair.error == pytest.approx(same.error)
        assert 1.0 < (pair.high - pair.low) / (same.high - same.low) < 1.15  # 4/5 of the 5 % are left for these four


def test_an_odd_reference_leaves_every_pair_its_own_interval():
    values = table()
    values["a"] = {s: 50 + 60.0 * (-1) ** s for s in range(3)}
    result = against(values, "a")
    assert result.odd == ("a",)
    assert {pair.method for pair in result.pairs} == {"own spread"}


def test_holes_and_what_is_left_out():
    values = table()
    del values["c"][1]
    values["g"] = {9: 3.0}
    result = against(values, "a")
    by_route = {pair.route: pair for pair in result.pairs}
    assert result.left_out == ("route g", "seed 9")
    assert by_route["c"].n == 2
    assert by_route["c"].df == 9  # 17 values, 6 + 3 - 1 effects
    assert by_route["c"].error / by_route["c"].detectable > 0


def test_one_seed_has_estimates_only():
    for pair in against(table(seeds=1), "a").pairs:
        assert (pair.n, pair.df, pair.p, pair.method) == (1, 0, 1.0, "one value")
        assert (pair.low, pair.high, pair.detectable) == (-math.inf, math.inf, math.inf)
        assert not pair.shown
        assert pair.against(0.5) is None


def test_equal_values_are_not_shown_to_differ():
    result = against({route: {0: 50 + 1 / 3, 1: 51 + 1 / 7} for route in "abcd"}, "a")
    assert [(pair.estimate, pair.p, pair.shown) for pair in result.pairs] == [(0.0, 1.0, False)] * 3


def test_a_table_without_a_second_route_has_no_pairs():
    assert against({"a": {0: 1.0, 1: 2.0}}, "a").pairs == ()
    assert all_pairs({}).pairs == ()


def test_an_unknown_reference_is_refused():
    with pytest.raises(ValueError, match="reference='z' is not one of the routes a, b"):
        against({"a": {0: 1.0}, "b": {0: 1.0}}, "z")


def test_as_good_by_a_wide_margin():
    pair = against(table(seeds=5), "a").pairs[0]
    assert pair.against(50.0).verdict is Verdict.AS_GOOD
    assert pair.against(50.0).high - pair.estimate < pair.high - pair.estimate


def test_fewer_than_four_points_are_compared_alone():
    tables = [table(seed=i) for i in range(3)]
    assert over_grid(tables, "a") == [against(t, "a") for t in tables]
    assert over_grid(tables) == [all_pairs(t) for t in tables]


@pytest.mark.parametrize("reference", ["a", None])
def test_four_points_share_what_they_know_of_the_spread(reference):
    results = over_grid([table(seeds=2, seed=i, b=30.0) for i in range(4)], reference)
    assert len(results) == 4
    for result in results:
        for pair in result.pairs:
            assert pair.method == "moderated over the grid"
            assert 1 < pair.df <= 20
            family = Dunnett(5, pair.df) if reference else Range(6, pair.df)
            assert pair.high - pair.estimate == pytest.approx(family.quantile(0.95) * pair.error)
            assert pair.shown == ("b" in (pair.route, pair.reference))


def test_points_with_holes_fall_back_to_bonferroni():
    tables = [table(seed=i) for i in range(4)]
    del tables[0]["b"][0], tables[0]["c"][0], tables[0]["c"][1]
    b, c, *_ = over_grid(tables, "a")[0].pairs
    assert (b.n, b.method) == (2, "moderated over the grid")
    assert b.high - b.estimate == pytest.approx(StudentT(b.df, 5).quantile(0.95) * b.error)
    assert (c.n, c.method) == (1, "one value")


def test_a_pair_that_does_not_vary_along_the_grid_counts_once():
    """12 points share reference and route c: 13 differences from one reference are worth 4 * 13 / 16 times one's df."""
    shared = table(seeds=5)
    tables = [{"a": shared["a"], "c": shared["c"], "d": table(seeds=5, seed=i)["d"]} for i in range(1, 13)]
    found = over_grid(tables, "a")
    most = (5 - 1) * 4 * 13 / 16
    assert all(pair.df <= most + 1e-9 for family in found for pair in family.pairs)
    first = [family.pairs[0] for family in found]
    assert {pair.route for pair in first} == {"c"} and len({(pair.low, pair.high) for pair in first}) == 1
