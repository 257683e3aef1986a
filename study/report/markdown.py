"""report.md: the answer, the tables and the provenance as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.report.chains import chain_of
from study.report.claims.judge import Finding, findings, rule
from study.report.claims.pruned_by import pruned_by
from study.report.claims.published import published_by
from study.report.findings import answers, provenance, seed_warning, warnings
from study.report.plots import Panel
from study.report.precisions import named_precision, precision_provenance
from study.report.routes import Route, describe_point, group_routes, point_fields
from study.report.tables import Cell, Line, main_table, per_class
from study.report.task import DETECTION, Task, task_of
from study.report.units import score, value

_LEGEND = (
    "{measure}: mean ± sample standard deviation over n seeds, 0 to 100. Δ {measure}: mean of the differences paired "
    "by seed, with its 95 % Student-t interval; “within noise” where the interval contains 0; not corrected for "
    "making several comparisons. Percentages: of `unpruned`. Training MACs: 3 × forward MACs × images seen, "
    "over every stage that the route needs, shared ones included."
)
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def render_markdown(comparison: Mapping[str, Any], runs: Path, out: Path, analyses: Sequence[Panel]) -> str:
    """The report without figures, with the tables of `analyses`; links are relative to `out`."""
    task, routes = task_of(comparison), group_routes(comparison["rows"])
    parts = [
        f"# {escape(comparison['title'])}",
        *_answer(comparison, routes, task),
        "## The comparison",
        *_tables(comparison, routes, runs, task),
        *_classes(routes),
        *_analyses(analyses),
        "## What each route ran",
        *(_chain(route, comparison, runs, out) for route in routes),
        "## What is missing",
        _missing(comparison),
        "## How to get these numbers again",
        _provenance(comparison),
        _fenced(comparison["config_yaml"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line break."""
    flat = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _answer(comparison: Mapping[str, Any], routes: Sequence[Route], task: Task) -> list[str]:
    parts = []
    for answer in answers(routes, task):
        place = f"{escape(answer.place)}: " if answer.place else ""
        parts.append(f"{place}**{escape(answer.sentence)}** {escape(answer.detail)}".strip())
    seeds = comparison["seeds"]
    basis = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"
    if evaluation := comparison.get("evaluation"):
        size = f"{evaluation.get('images', '?')} images"
        size += f", {evaluation['boxes']} boxes" if "boxes" in evaluation else ""
        place = f"{evaluation.get('split', '?')} split of {evaluation.get('dataset', '?')}"
        pixels = f"{evaluation.get('image_size', '?')} px"
        basis += f" · {evaluation.get('metric', task.primary.name)} · {size}, {place}, {pixels}"
    basis += f" · trained in {precision}" if (precision := named_precision(comparison)) else ""
    notes = [note for note in (seed_warning(routes, task), *warnings(comparison)) if note]
    scenes = ", scenes" if task is DETECTION else ""
    figures = f"Figures{scenes} and learning curves: [report.html](report.html)."
    return [*parts, escape(basis), *(f"> **Note:** {escape(note)}" for note in notes), figures]


def _tables(comparison: Mapping[str, Any], routes: Sequence[Route], runs: Path, task: Task) -> list[str]:
    """The main table and the verdicts on the literature."""
    pruned = pruned_by(routes, comparison.get("stages") or {}, runs)
    data = str((comparison.get("evaluation") or {}).get("dataset", ""))
    main = main_table(routes, point_fields(comparison), task, published_by(routes, pruned, data))
    head = ["route", *map(escape, main.grid), *map(escape, main.columns)]
    legend = _LEGEND.format(measure=task.primary.name.removesuffix(" (%)"))
    return [table(head, map(_line, main.lines)), legend, *_literature(findings(routes, task, pruned, data), task)]


def _line(line: Line) -> list[str]:
    paper = f" ({line.paper})" if line.paper else ""
    return [escape(line.route.name + paper), *map(escape, line.point), *map(_cell, line.cells)]


def _cell(cell: Cell) -> str:
    return escape(" ".join((cell.text, ", ".join(cell.notes))).strip())


def _literature(found: Sequence[Finding], task: Task) -> list[str]:
    if not found:
        return []
    return [
        "## Against the literature",
        rule(task),
        table(["at", "statement", "here", "evidence", "whose"], map(_finding, found)),
    ]


def _finding(found: Finding) -> list[str]:
    statement = found.statement
    return [escape(v) for v in (found.place, statement.text, found.verdict, found.evidence, statement.source)]


def _classes(routes: Sequence[Route]) -> list[str]:
    classes, means = per_class(routes)
    if not classes:
        return []
    rows = ([escape(name), *(score(values[i]) for values in means.values())] for i, name in enumerate(classes))
    return ["## AP by class", table(["class", *map(escape, means)], rows)]


def _analyses(panels: Sequence[Panel]) -> list[str]:
    """The tables of the analyses."""
    parts = []
    for panel in panels:
        if panel.rows:
            rows = ([escape(value(item)) for item in row] for row in panel.rows)
            parts += [f"### {escape(panel.title)}", escape(panel.caption), table([*map(escape, panel.columns)], rows)]
    return ["## Analyses", *parts] if parts else []


def _chain(route: Route, comparison: Mapping[str, Any], runs: Path, out: Path) -> str:
    lines = [f"**{escape(route.label)}**", ""]
    for step in chain_of(route, comparison.get("stages") or {}, runs, out):
        links = ", ".join(f"[{escape(run)}]({link})" for _, run, link in step.runs)
        shared = " (shared)" if step.shared else ""
        cost = f"{step.train_macs} training MACs, {step.seconds}"
        lines.append(f"* {escape(step.step)}{shared}: {links}; {escape(cost)}")
    return "\n".join(lines)


def _missing(comparison: Mapping[str, Any]) -> str:
    missing = comparison.get("missing") or []
    if not missing:
        return "Nothing: every route has a result for every seed."
    rows = ([m["pipeline"], m["seed"], describe_point(m.get("point") or {}), m["why"]] for m in missing)
    return table(["route", "seed", "at", "why"], ([escape(value) for value in row] for row in rows))


def _provenance(comparison: Mapping[str, Any]) -> str:
    seen = provenance(comparison.get("stages") or {})
    lines = [f"* config: {escape(comparison['config_file'])}"]
    for key, name in (("versions", "versions"), ("device", "device"), ("commit", "git commit")):
        lines.append(f"* {name}: {escape('; '.join(seen[key]) or 'not recorded')}")
    lines.append(f"* precision: {escape('; '.join(precision_provenance(comparison)) or 'not recorded')}")
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """A YAML block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"
