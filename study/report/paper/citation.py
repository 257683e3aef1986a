"""What a paper with these results cites, as BibTeX: the program as it was, the methods, the libraries."""

from __future__ import annotations

from importlib.metadata import version

from study.report.claims.citations import (
    BY_METHOD,
    BY_REGIME,
    BY_TOPIC,
    DEPENDENCIES,
    HOLM,
    LIU,
    PYTORCH,
    SMYTH,
    entries,
)
from study.report.content import Content
from study.report.paper.latex import comment, escape
from study.report.statistics.grid import MODERATED
from study.report.tables import references_of


def citation(content: Content) -> str:
    """The entries of what was used, and a reminder of the data set, whose source only the user knows."""
    stages = content.comparison.stages.values()
    methods = {stage.part("settings").get("method") for stage in stages}
    regimes = {stage.part("settings").get(key) for stage in stages for key in ("regime", "retrain")}
    pruned = any(route.is_pruned for route in content.routes)
    keys = [LIU, PYTORCH]
    keys += [DEPENDENCIES] if pruned else []
    keys += [key for name, key in BY_METHOD.items() if name in methods]
    keys += [key for name, key in BY_REGIME.items() if name in regimes]
    keys += BY_TOPIC.get(content.topic.name, ())
    keys += [HOLM] if content.findings else []
    keys += [SMYTH] if _moderated(content) else []
    data = content.comparison.evaluation.dataset
    head = comment(f"Of the data ({data}) and of trained weights that were given, cite the source as well.")
    head += comment("Needs \\usepackage{url}.")
    known = entries()
    # each once: several methods or regimes have one publication, and BibTeX refuses a key that comes twice
    return head + "\n\n".join([_program(content), *(known[key] for key in dict.fromkeys(keys))]) + "\n"


def _program(content: Content) -> str:
    """The program: its version, and the commits and libraries that the results record."""
    found = content.provenance
    facts = [*(f"commit {commit[:12]}" for commit in found.commit), *found.versions]
    note = f"Version {version('prune-transfer')}. Results: {'; '.join(facts) or 'nothing recorded'}."
    lines = ["@misc{prune_transfer,", "  title = {prune-transfer},", "  key = {prune-transfer},"]
    return "\n".join([*lines, f"  note = {{{escape(note)}}},", "}"])


def _moderated(content: Content) -> bool:
    """Whether an interval of the main table rests on variances moderated over the grid."""
    references = references_of(content.routes, content.topic)
    pairs = [content.differences.to(route, name) for route in content.routes for name in references]
    return any(pair is not None and pair.method == MODERATED for pair in pairs)
