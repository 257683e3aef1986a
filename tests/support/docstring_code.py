"""The code that the docstring of a package shows, so that a test can run it."""

import re
import textwrap
from collections.abc import Mapping
from types import ModuleType


def shown_code(package: ModuleType, replacements: Mapping[str, str]) -> str:
    """All indented lines of the docstring; `replacements` make it small, and each must be there to be replaced."""
    assert package.__doc__ is not None
    blocks = re.split(r"^(?=\S)", package.__doc__, flags=re.MULTILINE)
    code = "\n".join(textwrap.dedent(block.partition("\n")[2]) for block in blocks)
    for old, new in replacements.items():
        assert old in code
        code = code.replace(old, new)
    return code
