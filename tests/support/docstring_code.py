"""The code that the docstring of a package or the README shows, so that a test can run it."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

README = Path(__file__).parents[2] / "README.md"


def shown_code(package: ModuleType, replacements: Mapping[str, str]) -> str:
    """All indented lines of the docstring; `replacements` make it small, and each must be there to be replaced."""
    assert package.__doc__ is not None
    blocks = re.split(r"^(?=\S)", package.__doc__, flags=re.MULTILINE)
    return _replaced("\n".join(textwrap.dedent(block.partition("\n")[2]) for block in blocks), replacements)


def readme_code(word: str, replacements: Mapping[str, str]) -> str:
    """The one block of Python of the README that has this word in it; `replacements` as above."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if word in block)
    return _replaced(code, replacements)


def _replaced(code: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        assert old in code
        code = code.replace(old, new)
    return code
