"""LaTeX of tables (booktabs) and figures: escaping, columns, captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "`": r"\textasciigrave{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "°": r"$^\circ$",
    "…": r"\dots{}",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    # behind a line's end these would be its arguments
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# What an article's page holds in small print, estimated: lines, and characters in a line of it and of a caption.
_PAGE_LINES, _PAGE_CHARACTERS, _CAPTION_CHARACTERS = 52, 104, 85
_FITTED = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}"
_SPECIAL = re.compile("|".join(map(re.escape, _WORDS)))


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and how LaTeX sets it ("l", "r", "p{0.3\\textwidth}")."""

    heading: str
    setting: str = "l"


def escape(text: object) -> str:
    """Text that LaTeX shows as it is, in one line; two hyphens stay two."""
    # TeX would join two hyphens to a dash: a mark between them outlives the escaping and becomes {}
    flat = re.sub("-(?=-)", "-\0", " ".join(str(text).split()))
    return _SPECIAL.sub(lambda found: _WORDS[found[0]], flat).replace("\0", "{}")


def cell(lines: Sequence[str], setting: str) -> str:
    """A table cell of one line or more."""
    found = [escape(line) for line in lines if line]
    if len(found) < 2:
        return "".join(found)
    return rf"\begin{{tabular}}[t]{{@{{}}{setting}@{{}}}}" + r" \\ ".join(found) + r"\end{tabular}"


def table(columns: Sequence[Column], rows: Sequence[Sequence[Sequence[str]]], *, caption: str, label: str) -> str:
    """A table as wide as the page, or several of one number where it is longer; a row has the lines of each cell.

    What is wider than the page is scaled down to it.
    """
    parts = _pages(columns, rows, len(caption) // _CAPTION_CHARACTERS + 2)
    found = []
    for i, part in enumerate(parts):
        if i == 0:
            title = [rf"  \caption{{{escape(caption)}}}", rf"  \label{{tab:{_label(label)}}}"]
        else:
            title = [r"  \addtocounter{table}{-1}", rf"  \caption{{Part {i + 1} of {len(parts)}.}}"]
        found += _one_table(columns, part, title)
    return "\n".join(found) + "\n"


def _pages(
    columns: Sequence[Column], rows: Sequence[Sequence[Sequence[str]]], above: int
) -> list[list[Sequence[Sequence[str]]]]:
    """The rows, page by page, by an estimate of their lines; the first page has `above` lines of a caption too."""
    pages: list[list[Sequence[Sequence[str]]]] = [[]]
    filled = above
    for row in rows:
        lines = max(max(1, sum(map(bool, cell)), _wrapped(cell, c)) for cell, c in zip(row, columns, strict=True))
        if pages[-1] and filled + lines > _PAGE_LINES:
            pages.append([])
            filled = 2
        pages[-1].append(row)
        filled += lines
    return pages


def _wrapped(cell: Sequence[str], column: Column) -> int:
    """The lines of a cell that is broken at a share of the page's width."""
    share = re.match(r"p\{([\d.]+)", column.setting)
    width = float(share[1]) * _PAGE_CHARACTERS if share else float("inf")
    return sum(int(len(line) // width) + 1 for line in cell)


def _one_table(columns: Sequence[Column], rows: Sequence[Sequence[Sequence[str]]], title: Sequence[str]) -> list[str]:
    ragged = r">{\raggedright\arraybackslash}"  # narrow columns are not stretched
    setting = "".join((ragged if column.setting.startswith("p") else "") + column.setting for column in columns)
    head = " & ".join(escape(column.heading) for column in columns)
    body = [" & ".join(cell(lines, column.setting) for lines, column in zip(row, columns, strict=True)) for row in rows]
    return [
        r"\begin{table*}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        *title,
        rf"  {_FITTED}{{\begin{{tabular}}{{{setting}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(rf"    {line} \\" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table*}",
    ]


def figure(file: str, *, caption: str, label: str) -> str:
    """A figure as wide as a column."""
    lines = [
        r"\begin{figure}",
        r"  \centering",
        rf"  \includegraphics[width=\columnwidth]{{{file}}}",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{fig:{_label(label)}}}",
        r"\end{figure}",
    ]
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """A line that LaTeX leaves out."""
    return f"% {' '.join(text.split())}\n"


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
