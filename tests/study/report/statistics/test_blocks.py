"""Block designs against hand calculations and statsmodels' least squares; odd routes; holes."""

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from study.report.statistics.blocks import lay_out, residual_squares, variances
from study.report.statistics.simulated import differences, standard_errors

# residuals of route + seed: by hand, rows 1 0 -1, -1 0 1, 0 0 0
BY_HAND = {"a": {0: 11.0, 1: 20.0, 2: 29.0}, "b": {0: 12.0, 1: 23.0, 2: 34.0}, "c": {0: 10.0, 1: 20.0, 2: 30.0}}


def noisy(routes, seeds, deviations=None, seed=0):
    random = np.random.default_rng(seed)
    return {
        f"r{i}": {s: 50 + i + 2 * s + (deviations or {}).get(i, 1.0) * random.normal() for s in range(seeds)}
        for i in range(routes)
    }


def pooled_variance(blocks):
    squares, df = residual_squares(blocks.values[None], blocks.layout, tuple(range(len(blocks.routes))))
    return squares[0] / df, df


def test_pooled_variance_of_a_complete_table_by_hand():
    blocks = lay_out(BY_HAND)
    variance, df = pooled_variance(blocks)
    assert df == blocks.df == 4  # (3 - 1)(3 - 1)
    assert variance == pytest.approx(4 / 4)


def test_pooled_variance_is_half_the_mean_variance_of_all_paired_differences():
    blocks = lay_out(noisy(5, 4))
    pairs = [blocks.paired(a, b).var(ddof=1) / 2 for i, a in enumerate(blocks.routes) for b in blocks.routes[:i]]
    assert pooled_variance(blocks)[0] == pytest.approx(np.mean(pairs))


def test_a_table_with_holes_agrees_with_statsmodels():
    table = noisy(4, 5)
    del table["r0"][1], table["r2"][4], table["r3"][0], table["r3"][1]
    blocks = lay_out(table)
    route, seed = blocks.layout.places
    design = np.column_stack([np.eye(4)[route], np.eye(5)[seed][:, 1:]])
    fit = OLS(blocks.values, design).fit()
    variance, df = pooled_variance(blocks)
    assert df == blocks.df == fit.df_resid == 8
    assert variance == pytest.approx(fit.mse_resid)
    pairs = ((1, 0), (2, 0), (3, 0), (3, 2))
    contrasts = np.zeros((len(pairs), design.shape[1]))
    for row, (a, b) in zip(contrasts, pairs, strict=True):
        row[a], row[b] = 1, -1
    test = fit.t_test(contrasts)
    assert differences(blocks.values[None], blocks.layout, pairs)[0] == pytest.approx(test.effect)
    spread = variances(blocks.values[None], blocks.layout)
    alike = type(spread)(np.full_like(spread.by_route, variance), spread.odd)
    assert standard_errors(alike, blocks.layout, pairs)[0] == pytest.approx(test.sd)


def test_what_cannot_be_compared_is_left_out_and_named():
    table = {
        "a": {0: 1.0, 1: 2.0, 7: 3.0},
        "b": {0: 1.0, 1: None, 2: float("nan")},
        "c": {1: 2.0, 0: 4.0},
        "d": {5: 1.0},
        "e": {},
    }
    blocks = lay_out(table)
    assert blocks.routes == ("a", "b", "c")
    assert blocks.seeds == (0, 1)
    assert blocks.layout.present == ((True, True), (True, False), (True, True))
    assert blocks.values.tolist() == [1.0, 2.0, 1.0, 4.0, 2.0]
    assert blocks.left_out == ("route d", "route e", "seed 5", "seed 7")


def test_the_part_with_the_reference_stays():
    table = {"a": {0: 1.0}, "b": {0: 1.0}, "c": {0: 1.0}, "d": {1: 1.0}, "e": {1: 2.0}}
    assert lay_out(table).routes == ("a", "b", "c")
    assert lay_out(table, "e").routes == ("d", "e")


def test_a_route_that_joins_two_parts_keeps_both():
    table = {"a": {0: 1.0}, "b": {1: 1.0}, "c": {0: 1.0, 1: 1.0}}
    assert lay_out(table).routes == ("a", "b", "c")
    assert lay_out(table).left_out == ()


def test_a_route_of_thirty_times_the_deviation_is_odd():
    blocks = lay_out(noisy(6, 3, {2: 30.0}))
    spread = variances(blocks.values[None], blocks.layout)
    assert spread.odd.tolist() == [[False, False, True, False, False, False]]
    rest = blocks.without(["r2"])
    assert (spread.by_route[0, [0, 1, 3, 4, 5]] >= pooled_variance(rest)[0] - 1e-12).all()
    assert spread.by_route[0, 2] > 100


def test_two_odd_routes_are_found_one_after_the_other():
    blocks = lay_out(noisy(6, 5, {0: 30.0, 5: 900.0}))
    assert variances(blocks.values[None], blocks.layout).odd.tolist() == [[True, False, False, False, False, True]]


def test_the_test_for_an_odd_route_has_its_level():
    blocks = lay_out(noisy(6, 3))
    tables = np.random.default_rng(3).standard_normal((20_000, 18))
    found = variances(tables, blocks.layout).odd.any(axis=1).mean()
    assert 0.005 < found <= 0.0125  # at most 1 % by Bonferroni and by the ratio of deviations


def test_a_routes_own_variance_is_that_of_its_contrast_to_the_others():
    blocks = lay_out(noisy(4, 3))
    own = (
        6
        / 2
        * np.array(  # OWN_WEIGHT over n - 1
            [
                np.var(whole[i] - np.delete(whole, i, axis=0).mean(axis=0), ddof=1) * 3 / 4
                for whole in [blocks.values.reshape(4, 3)]
                for i in range(4)
            ]
        )
    )
    expected = np.maximum(pooled_variance(blocks)[0], own)
    assert variances(blocks.values[None], blocks.layout).by_route[0] == pytest.approx(expected)


def test_equal_values_have_no_variance_not_a_rounded_one():
    values = 50 + 1 / 3
    blocks = lay_out({route: {seed: values + seed / 7 for seed in range(3)} for route in "abcd"})
    spread = variances(blocks.values[None], blocks.layout)
    assert spread.by_route.tolist() == [[0.0] * 4]
    assert not spread.odd.any()


def test_a_route_that_varies_where_the_others_do_not_is_odd():
    table = {route: {seed: 50.0 + seed for seed in range(3)} for route in "abc"} | {"d": {0: 50.0, 1: 51.5, 2: 52.0}}
    blocks = lay_out(table)
    spread = variances(blocks.values[None], blocks.layout)
    assert spread.odd.tolist() == [[False, False, False, True]]
    assert spread.by_route[0, :3].tolist() == [0.0] * 3
