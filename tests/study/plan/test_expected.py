"""Published numbers in a config: what they may be about, and that nothing that is run depends on them."""

import pytest
from support.tiny_study import tiny

from study.plan.expected import _MEASURES
from study.report.topic import CLASSIFICATION, DETECTION
from training.strict_yaml import ConfigError

GIVEN = {"route": "unpruned", "where": "{}", "measure": "AP", "value": "37.9", "source": "here", "seen": "true"}


def expecting(**changes):
    return f"expect=[{{{', '.join(f'{key}: {value}' for key, value in {**GIVEN, **changes}.items())}}}]"


def test_no_stage_depends_on_a_published_number():
    config, routes = tiny(expecting(), "grid={prune.ratio: [0.5, 0.6]}")
    assert (config.expect[0].value, config.expect[0].spread) == (37.9, None)
    plain = tiny("grid={prune.ratio: [0.5, 0.6]}")[1]
    assert [s.id for r in routes for s in r.stages] == [s.id for r in plain for s in r.stages]


def test_it_may_be_of_a_route_or_a_value_that_is_not_run_and_null_is_none():
    tiny(expecting(route="scratch_b_fair", where="{prune.ratio: 0.9}"), "grid={prune.ratio: [0.5, 0.6]}")
    assert tiny("expect=null")[0].expect == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"route": "fine_tune"}, r"expect\.0\.route: 'fine_tune' is not there; choose from unpruned, prune_then"),
        ({"measure": "top1"}, r"expect\.0\.measure: 'top1' is not there; choose from AP, AP50, AP75"),
        (
            {"where": "{prune.method: random}"},
            r"expect\.0\.where: 'prune\.method' is not there; choose from prune\.ratio",
        ),
        ({"seen": "false"}, r"expect\.0\.seen: .*from memory"),
        ({"value": "379"}, r"expect\.0\.value"),
        ({"sauce": "x"}, r"expect\.0\.sauce"),
    ],
)
def test_what_there_is_not_is_refused_with_the_choices(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(expecting(**changes), "grid={prune.ratio: [0.5, 0.6]}")


def test_the_measures_are_those_of_the_report():
    found = {topic is DETECTION: tuple(m.key for m in topic.measures) for topic in (DETECTION, CLASSIFICATION)}
    assert found == _MEASURES
