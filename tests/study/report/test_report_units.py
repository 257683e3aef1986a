"""How numbers are printed."""

import pytest

from study.report import units
from study.report.routes import paired
from study.report.statistics.families import Difference
from study.report.statistics.simultaneous import StudentT
from study.report.statistics.summary import Summary


def between(low, high):
    """A difference with this interval."""
    return Difference("a", "b", (low + high) / 2, 2, 5, "pooled", low=low, high=high, detectable=4.22, null=StudentT(5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_819_066_368, "1.82 G"),
        (563_000_000, "563 M"),
        (11_176_512, "11.2 M"),
        (4.12e14, "412 T"),
        (12, "12"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_si(value, text):
    assert units.si(value) == text


def test_short_times_are_no_zeros():
    times = (0.0, 0.0516, 0.5, 9.4, 9.6, 14.2, 1234.0, None)
    assert [units.seconds(time) for time in times] == "0 s|0.052 s|0.5 s|9.4 s|9.6 s|14 s|1,234 s|–".split("|")


def test_unit_follows_the_prefix():
    assert units.si(1.5e12, "MACs") == "1.50 TMACs"


def test_differences_have_a_sign_and_a_real_minus():
    assert [units.signed(v) for v in (1.3, -0.4, 0.0)] == ["+1.3", "−0.4", "+0.0"]
    assert units.interval(between(-0.4, 3.0)) == "[−0.4, 3.0]"


def test_a_bound_that_is_not_zero_does_not_read_as_zero():
    assert units.interval(between(0.03, 2.57)) == "[0.03, 2.57]"
    assert units.signed(-0.02) == "−0.02"


def test_one_seed_is_said():
    alone = paired({0: 61.3}, {0: 60.0})
    assert units.interval(alone) == "(one seed: no interval)"
    assert units.shown(alone) == "not decidable"
    assert units.mean_std(Summary(61.23, None, 1)) == "61.2 (n = 1)"
    assert units.mean_std(Summary(61.23, 0.84, 2)) == "61.2 ± 0.8 (n = 2)"


def test_percent_of_nothing_is_empty():
    assert units.percent(27, 100) == "27 %"
    assert units.percent(27, 0) == units.percent(None, 5) == ""


def test_what_is_not_shown_says_what_would_have_been():
    assert units.shown(between(0.1, 3.0)) == units.shown(between(-3.0, -0.1)) == "shown"
    assert units.shown(between(-0.1, 3.0)) == "not shown (4.2 would be)"


def test_small_p_values_are_not_zero():
    assert [units.p_value(p) for p in (0.0321, 1.0, 0.0009)] == ["= 0.032", "= 1", "< 0.001"]
