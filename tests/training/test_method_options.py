"""Options of methods from words: typed, and unknown ones refused."""

import pytest

from pruning.methods import METHODS
from training.options import check_level, read_method_options


@pytest.mark.parametrize("method", METHODS)
def test_nothing_given_is_the_default(method):
    assert read_method_options(method, {}) == METHODS[method].options()


def test_values_get_their_types():
    options = read_method_options("slimming", {"s": "1e-5", "exact": "no", "level": "global"})
    assert (options.s, options.exact, options.level) == (1e-5, False, "global")
    assert read_method_options("uniform", {"budget": {"macs": 0.5}}).budget == {"macs": 0.5}


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("slimming", {"sigma": 1}, "'slimming' has no option 'sigma'; known: s, exact, level, linear_norms"),
        ("l1_filter", {"p": 1}, "'l1_filter' has no option 'p'; known: none"),
        ("thinet", {"positions_per_image": "many"}, "'many' does not fit; expected: whole number"),
        ("thinet", {"positions_per_image": 0}, "positions_per_image=0 must be at least 1"),
        ("lottery", {"masks": "file"}, "option 'masks' of method 'lottery'"),
        ("soft_filter", {"ratio": 0.3}, "'soft_filter' has no option 'ratio': `ratio` beside `method` says it"),
        ("soft_filter", {"skip": ["conv1"]}, "'soft_filter' has no option 'skip': `skip` beside `method` says it"),
        ("nosuch", {}, "unknown pruning method 'nosuch'"),
    ],
)
def test_what_is_wrong_is_said(method, given, words):
    with pytest.raises(ValueError, match=words):
        read_method_options(method, given)


@pytest.mark.parametrize("method", ["slimming", "magnitude", "structure_selection", "lottery"])
def test_a_stated_level_that_the_method_would_not_follow_is_refused(method):
    options = read_method_options(method, {})
    check_level(method, options, "global")
    with pytest.raises(ValueError, match=f"level 'layer': method '{method}' ranks at level 'global'"):
        check_level(method, options, "layer")


def test_the_option_that_does_it_is_named():
    with pytest.raises(ValueError, match=r"its option `level` says otherwise \(options.level=layer\)"):
        check_level("slimming", read_method_options("slimming", {}), "layer")
    check_level("slimming", read_method_options("slimming", {"level": "layer"}), "layer")
    check_level("l1_filter", read_method_options("l1_filter", {}), "global")
