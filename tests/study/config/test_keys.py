"""Every key says what it takes, its default and its meaning; the page and the launchers print the same."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

import prune_transfer
from study.config.keys import WIDTH, all_keys, in_lines, in_markdown, keys_at
from study.config.schema import SCHEMAS
from training.misfits import keys_of, sections_in, shown
from training.type_words import InWords, OneOf, in_words

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_key_has_a_type_in_words_and_one_line_of_meaning(schema):
    keys = list(all_keys(SCHEMAS[schema]))
    assert [key.path.replace("[]", "") for key in keys] == [".".join(path) for path in keys_of(SCHEMAS[schema])]
    for key in keys:
        assert re.fullmatch(r"[A-Z`][^\n|]{10,110}", key.meaning), key
        assert key.meaning.endswith((".", "*")), key
        assert re.fullmatch(r"[a-z0-9][^\[\]|\n]+", key.type), key
        assert not re.search(r"typing|Annotated|NoneType|\bint\b|\bfloat\b|\bstr\b|\bdict\b|\btuple\b", key.type), key


@pytest.mark.parametrize("schema", SCHEMAS)
def test_defaults_printed_are_those_of_the_schema(schema):
    printed = {key.path: key.default for key in all_keys(SCHEMAS[schema])}

    def compare(section, prefix):
        for name, field in section.model_fields.items():
            path = f"{prefix}{name}"
            inner = list(sections_in(field.annotation))
            if field.is_required():
                assert printed[path] == "required"
            elif inner and printed[path] == "see its keys":
                assert field.default == inner[0]()
            else:
                value = field.default
                assert printed[path] in (shown(value), str(value))
            for part in inner:
                compare(part, f"{path}[]." if f"{path}[].{next(iter(part.model_fields))}" in printed else f"{path}.")

    compare(SCHEMAS[schema], "")


def test_lines_are_two_a_key_and_fit_a_terminal():
    lines = in_lines(keys_at("study")).splitlines()
    assert max(map(len, lines)) <= WIDTH
    text = in_lines(keys_at("study", "prune.ratio"))
    assert text == (
        "prune.ratio: fraction (at least 0 and less than 1) or list of fractions (each at least 0 and less than 1);"
        " default 0.5\n"
        "    Fraction of channels (or weights) removed: one for the whole network, or a list with one for each stage."
    )


def test_a_part_is_the_key_and_what_is_below_it():
    assert [key.path for key in keys_at("study", "detector.dataset.coco.test")] == [
        "detector.dataset.coco.test",
        "detector.dataset.coco.test.annotations",
        "detector.dataset.coco.test.images",
    ]
    with pytest.raises(ValueError, match=r"no key 'detector\.modle'; did you mean 'detector\.model'\?"):
        keys_at("study", "detector.modle")
    with pytest.raises(ValueError, match=r"no key 'epochs'; did you mean 'classifier\.train\.epochs'\?"):
        keys_at("study", "epochs")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, Field(ge=1)] | None, "whole number (at least 1) or null"),
        (Annotated[float, Field(gt=0, lt=1)], "fraction (greater than 0 and less than 1)"),
        (Annotated[tuple[float, ...], Field(min_length=1)], "list (at least 1 item) of numbers"),
        (tuple[int, int], "list of 2 whole numbers"),
        (dict[str, bool], "mapping of names to true or false"),
        (dict[str, Any] | Path, "mapping of names to values or path"),
        (Literal["a", "b"] | None, "one of a, b, or null"),
        (Annotated[str, OneOf({"x": 1, "y": 2}, "letter")], "one of x, y"),
        (Annotated[list[Any] | dict[str, Any], InWords("anything")], "anything"),
    ],
)
def test_a_type_in_words(annotation, words):
    assert in_words(annotation) == words


def test_the_page_is_what_the_schema_says():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == in_markdown(), "write the page anew: python -m study.config.keys > docs/configuration.md"


@pytest.mark.parametrize(
    ("command", "first"),
    [("run", "name: text"), ("train-cls", "seed: whole number"), ("train-det", "seed: whole number")],
)
def test_commands_print_their_keys_without_a_config(command, first, capsys):
    with pytest.raises(SystemExit) as ended:
        prune_transfer.main(command, "--keys")
    said = capsys.readouterr()
    assert ended.value.code == 0 and said.err == ""
    assert said.out.startswith(first)
