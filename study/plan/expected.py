"""Are the published numbers of a config about something that its study can have?"""

from collections.abc import Collection

from pruning.errors import Refusal
from study.config.schema import StudyConfig
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES

# whether there is a detector -> what is measured
_MEASURES = {True: ("AP", "AP50", "AP75"), False: ("top1", "top5")}


def check_expected(config: StudyConfig, fields: Collection[str]) -> None:
    """ValueError with the choices for a route, field or measure that there is not; `fields`: of the grid.

    A named route may be left out of `pipelines`, and a value of the grid too, without its numbers being taken out.
    """
    detects = config.detector is not None
    given = [changes.get("pipelines") for changes in config.variants.values()]
    chains = [config.pipelines, *(names for names in given if isinstance(names, list | dict))]
    named = PIPELINES if detects else CLASSIFIER_PIPELINES
    routes = dict.fromkeys([*(name for here in chains for name in here), *named])
    for i, expected in enumerate(config.expect):
        _choose(f"expect.{i}.route", expected.route, routes)
        _choose(f"expect.{i}.measure", expected.measure, _MEASURES[detects])
        for field in expected.where:
            _choose(f"expect.{i}.where", field, fields)


def _choose(key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise Refusal(f"{key}: {value!r} is not there; choose from {', '.join(known) or 'nothing: there is no grid'}")
