"""The main table and the claims as LaTeX, means and differences as CSV: the numbers and the words of the report."""

from __future__ import annotations

from collections.abc import Sequence

from study.plan.named import DENSE
from study.report.content import Content
from study.report.paper.latex import Column, comment, table
from study.report.statistics.power import POWER
from study.report.statistics.simulated import CONFIDENCE
from study.report.tables import Cell, Line, csv_text, csv_value, difference_heading, references_of
from study.report.topic import CHOOSING


def main_latex(content: Content) -> str:
    """The main table: the score, its differences and the costs that the answer names.

    What all cells have in common (n, how the intervals were made) stands in the caption alone.
    """
    topic, found = content.topic, content.table
    references = references_of(content.routes, topic)
    headings = {topic.primary.name: topic.primary.name}
    headings |= {difference_heading(topic, r): difference_heading(topic, topic.print_name(r)) for r in references}
    costs = [topic.cost(key).name for key in topic.answer_costs]
    headings |= {name: name for name in costs}
    kept = [i for i, name in enumerate(found.columns) if name in headings]
    fields = short_fields(found.grid)
    columns = [Column("Route"), *(Column(fields[field]) for field in found.grid)]
    columns += [Column(headings[found.columns[i]], "r") for i in kept]
    differences = [cell.notes for line in found.lines for cell in line.cells if cell.mark]
    # the first two notes are the interval and its verdict (`study.report.tables`), which differ from cell to cell
    common = [note for note in differences[0][2:] if all(note in notes for notes in differences)] if differences else []
    shared, seeds = f"All differences: {', '.join(common)}. " if common else "", seeds_of(content)
    rows = []
    for line in found.lines:
        names = [[topic.print_name(line.route.name)], *([value] for value in line.point)]
        cells = (_lines(line.cells[i], (f"({seeds})", *common), below=found.columns[i] in costs) for i in kept)
        rows.append([*names, *cells])
    caption = (
        f"{content.comparison.title}. {topic.primary.name}: mean ± sample standard deviation over {seeds} seeds, 0 to"
        f" 100, {basis(content)}. Δ {topic.primary.name}: {content.difference_note} "
        f"{shared}Percentages: of {topic.print_name(DENSE)}."
        " Training MACs: 3 × forward MACs × images seen, summed over every stage that the route needs, shared ones"
        f" included. {content.seed_warning}"
    )
    return table(columns, rows, caption=caption, label=f"{content.comparison.study}-main")


def basis(content: Content) -> str:
    """What the scores were measured on, in words."""
    found = content.comparison.evaluation
    return f"on {found.images or '?'} images, {found.split or '?'} split of {found.dataset or '?'}"


def seeds_of(content: Content) -> str:
    """How many seeds the scores rest on: "n = 5", or "n" where the routes differ in it."""
    counts = {s.n for route in content.routes if (s := route.summary(content.topic.primary.key)) is not None}
    return f"n = {counts.pop()}" if len(counts) == 1 else "n"


def short_fields(fields: Sequence[str]) -> dict[str, str]:
    """Each field of the grid by its last word, where that tells it from the others."""
    words = [field.rpartition(".")[2] for field in fields]
    return {field: word if words.count(word) == 1 else field for field, word in zip(fields, words, strict=True)}


def _lines(cell: Cell, common: Sequence[str], *, below: bool) -> list[str]:
    """A cell with its first note beside the number, or below it, and the others below; without those in common."""
    notes = list(cell.notes)
    for known in common:
        notes = [note.replace(known, "").strip() for note in notes]
    beside = 0 if below else 1
    return [" ".join([cell.text, *notes[:beside]]).strip(), ", ".join(filter(None, notes[beside:]))]


def claims_latex(content: Content) -> str:
    """The statements of the literature with their verdicts."""
    if not content.findings:
        return comment("No statement of the literature is about what was run.")
    topic, grid = content.topic, bool(content.table.grid)
    widths = (0.22, 0.3, 0.18) if grid else (0.24, 0.36, 0.24)
    statement, evidence, source = (f"p{{{width}\\textwidth}}" for width in widths)
    columns = [
        Column("Statement", statement),
        *([Column("At", r"p{0.13\textwidth}")] if grid else []),
        Column("Verdict"),
        Column("Evidence", evidence),
        Column("Whose", source),
    ]
    rows = []
    for finding in content.findings:
        scope = f" ({finding.statement.scope})" if finding.statement.scope else ""
        words = finding.statement.in_words(topic.print_name) + scope
        place = [[_short_place(finding.place, content.table.grid)]] if grid else []
        rows.append([[words], *place, [finding.verdict], [finding.evidence], [finding.statement.source]])
    caption = (
        f"Statements of the literature, tested here over {seeds_of(content)} seeds, {basis(content)}. {content.rule}"
    )
    return table(columns, rows, caption=caption, label=f"{content.comparison.study}-claims")


def _short_place(place: str, fields: Sequence[str]) -> str:
    for field, word in short_fields(fields).items():
        place = place.replace(f"{field} = ", f"{word} = ")
    return place


def means_csv(content: Content) -> str:
    """means.csv: one row per route and grid point, with all digits."""
    topic = content.topic
    also = [measure for measure in topic.also if measure.name in content.table.scores]
    measures = [measure.key for measure in (*topic.measures, *also, *topic.after_pruning)]
    chosen = any(line.route.mean(CHOOSING.key) is not None for line in content.table.lines)
    costs = [cost.key for cost in topic.costs if chosen or cost is not CHOOSING]
    published = ["pretraining"] if any(line.route.pretraining for line in content.table.lines) else []
    columns = ["route", "print_name", *content.table.grid]
    columns += [f"{key}_{part}" for key in measures for part in ("mean", "sd", "n")]
    rows = []
    for line in content.table.lines:
        found: list[object] = [line.route.name, topic.print_name(line.route.name), *_point(line, content)]
        for key in measures:
            summary = line.route.summary(key)
            found += [summary.mean, summary.std, summary.n] if summary else [None, None, 0]
        rows.append([*found, *(line.route.mean(key) for key in costs), *(line.route.pretraining for _ in published)])
    return csv_text([*columns, *costs, *published], rows)


def differences_csv(content: Content) -> str:
    """differences.csv: one row per route, grid point and reference; the intervals are those of the main table."""
    topic = content.topic
    columns = ["route", *content.table.grid, "reference", "estimate", "low", "high", "confidence", "n", "df", "p"]
    columns += ["detectable", "power", "method", "verdict"]
    rows = []
    for reference in references_of(content.routes, topic):
        for line in content.table.lines:
            found = None if line.route.name == reference else content.differences.to(line.route, reference)
            if found is None:
                continue
            numbers: list[object] = [None, None, None, found.n, None, None, None, None, "", "not decidable"]
            if found.decidable:
                numbers = [found.low, found.high, CONFIDENCE, found.n, found.df, found.p, found.detectable, POWER]
                numbers += [found.method, "shown" if found.shown else "not shown"]
            rows.append([line.route.name, *_point(line, content), reference, found.estimate, *numbers])
    return csv_text(columns, rows)


def _point(line: Line, content: Content) -> list[object]:
    return [csv_value(line.route.point.get(field)) for field in content.table.grid]
