"""List every statement that a report may test, with its source and the configs that run what it needs.

python -m study.report.claims > docs/statements.md
"""

from __future__ import annotations

from study.report.claims.statement import COMPARABLE, NO_WORSE, Statement
from study.report.topic import TOPICS

_COLUMNS = ("question", "statement", "about", "test", "source", "run by (configs/pipelines)")
_HEADING = """# The statements that a report tests

A list that `python -m study.report.claims` prints. A report shows those whose runs its study has; statements of one
question that oppose each other stand together. `claims_cifar10`, `imagenet_*`, `voc07_r34` and `coco_r50` are not run
here: they need the data and a GPU. A statement without a config needs a grid of one's own over `prune.ratio` and
variants of `prune.method`.
"""


def listing() -> str:
    """Markdown with a table for each task."""
    lines = [_HEADING]
    for name, topic in TOPICS.items():
        lines += [f"## {name.capitalize()}", "", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
        lines += [_row((s.group, s.text, s.scope, _test(s), s.source, ", ".join(s.runs))) for s in topic.statements]
        lines.append("")
    return "\n".join(lines)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _test(statement: Statement) -> str:
    """Which test decides it."""
    if statement.trend:
        return f"slope over {statement.field}"
    kind = {NO_WORSE: "no worse than the margin", COMPARABLE: "equivalence"}.get(statement.relation, "difference")
    return f"{kind}, interpolated at equal {statement.equal_cost}" if statement.equal_cost else kind


if __name__ == "__main__":
    print(listing())
