"""The page of methods is what their docstrings say."""

from pathlib import Path

from pruning.methods import METHODS
from pruning.methods.__main__ import in_markdown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == in_markdown(), (
        "write the page anew: python -m pruning.methods > docs/methods.md"
    )


def test_every_method_says_where_it_comes_from_and_what_its_options_are():
    sections = dict(part.split("`\n", 1) for part in in_markdown().split("\n## `")[1:])
    assert list(sections) == list(METHODS)
    for name, text in sections.items():
        first = text.strip().splitlines()[0]
        assert len(first) > 40 and "interface" not in first, name
        for option in METHODS[name].options.__dataclass_fields__:
            assert f"`{option}" in text.split("Options, with their defaults", 1)[1].split("\n\n", 1)[1], (name, option)
