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
    "≈": r"$\approx$",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    # behind a line's end these would be its arguments
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _WORDS)))


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and how LaTeX sets it ("l", "r", "p{0.3\\textwidth}")."""

    heading: str
    setting: str = "l"


def escape(text: object) -> str:
    """Text that LaTeX shows as it is, in one line; two hyphens stay two."""
    flat = re.sub("-(?=-)", "-\0", " ".join(str(text).split()))
    return _SPECIAL.sub(lambda found: _WORDS[found[0]], flat).replace("\0", "{}")


def cell(lines: Sequence[str], setting: str) -> str:
    """A table cell of one line or more."""
    found = [escape(line) for line in lines if line]
    if len(found) < 2:
        return "".join(found)
    return rf"\begin{{tabular}}[t]{{@{{}}{setting}@{{}}}}" + r" \\ ".join(found) + r"\end{tabular}"


def table(columns: Sequence[Column], rows: Sequence[Sequence[Sequence[str]]], *, caption: str, label: str) -> str:
    """A table as wide as the page; a row is the lines of each of its cells."""
    setting = "".join(column.setting for column in columns)
    head = " & ".join(escape(column.heading) for column in columns)
    body = [" & ".join(cell(lines, column.setting) for lines, column in zip(row, columns, strict=True)) for row in rows]
    lines = [
        r"\begin{table*}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{tab:{_label(label)}}}",
        rf"  \begin{{tabular}}{{{setting}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(rf"    {line} \\" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


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
