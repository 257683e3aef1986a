"""report.md: the answer, the tables and the provenance as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.report.chains import chain_of
from study.report.findings import Finding, answers, findings, provenance, seed_warning, warnings
from study.report.routes import Route, describe_point, group_routes
from study.report.tables import Cell, Line, main_table, per_class
from study.report.units import ap

_LEGEND = (
    "AP: mean ± sample standard deviation over n seeds, 0 to 100. Δ AP: mean of the differences paired by "
    "seed, with its 95 % Student-t interval; “within noise” where the interval contains 0; not corrected for "
    "making several comparisons. Percentages: of `unpruned`. Training MACs: 3 × forward MACs × images seen, "
    "over every stage that the route needs, shared ones included."
)
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def render_markdown(comparison: Mapping[str, Any], runs: Path, out: Path) -> str:
    """The report without figures; links are relative to `out`."""
    routes = group_routes(comparison["rows"])
    grid = list(comparison.get("grid") or {})
    parts = [
        f"# {escape(comparison['title'])}",
        *_answer(comparison, routes),
        "## The comparison",
        _main_table(routes, grid),
        _LEGEND,
        *_literature(routes),
        *_classes(routes),
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


def _answer(comparison: Mapping[str, Any], routes: Sequence[Route]) -> list[str]:
    parts = []
    for answer in answers(routes):
        place = f"{escape(answer.place)}: " if answer.place else ""
        parts.append(f"{place}**{escape(answer.sentence)}** {escape(answer.detail)}".strip())
    seeds = comparison["seeds"]
    basis = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"
    if evaluation := comparison.get("evaluation"):
        size = f"{evaluation.get('images', '?')} images, {evaluation.get('boxes', '?')} boxes"
        place = f"{evaluation.get('split', '?')} split of {evaluation.get('dataset', '?')}"
        pixels = f"{evaluation.get('image_size', '?')} px"
        basis += f" · {evaluation.get('metric', 'AP')} · {size}, {place}, {pixels}"
    notes = [note for note in (seed_warning(routes), *warnings(comparison)) if note]
    figures = "Figures, scenes and learning curves: [report.html](report.html)."
    return [*parts, escape(basis), *(f"> **Note:** {escape(note)}" for note in notes), figures]


def _main_table(routes: Sequence[Route], grid: Sequence[str]) -> str:
    main = main_table(routes, grid)
    head = ["route", *map(escape, main.grid), *map(escape, main.columns)]
    return table(head, map(_line, main.lines))


def _line(line: Line) -> list[str]:
    paper = f" ({line.paper})" if line.paper else ""
    return [escape(line.route.name + paper), *map(escape, line.point), *map(_cell, line.cells)]


def _cell(cell: Cell) -> str:
    return escape(" ".join((cell.text, ", ".join(cell.notes))).strip())


def _literature(routes: Sequence[Route]) -> list[str]:
    found = findings(routes)
    if not found:
        return []
    return [
        "## Against the literature",
        "Supported or contradicted only where the whole 95 % interval of the paired difference excludes 0.",
        table(["at", "statement", "here", "evidence", "whose"], map(_finding, found)),
    ]


def _finding(found: Finding) -> list[str]:
    statement = found.statement
    return [escape(v) for v in (found.place, statement.text, found.verdict, found.evidence, statement.source)]


def _classes(routes: Sequence[Route]) -> list[str]:
    classes, means = per_class(routes)
    if not classes:
        return []
    rows = ([escape(name), *(ap(values[i]) for values in means.values())] for i, name in enumerate(classes))
    return ["## AP by class", table(["class", *map(escape, means)], rows)]


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
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """A YAML block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"
