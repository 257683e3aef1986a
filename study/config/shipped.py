"""The configs that come with the program: a name such as `digits` stands for the file configs/pipelines/digits.yaml."""

from pathlib import Path

from training.strict_yaml import ConfigError

_FOLDER = Path(__file__).parents[1] / "configs"  # in a clone a link to its configs/


def shipped(folder: str = "*") -> dict[str, Path]:
    """The files of a folder of configs (pipelines, classify, detect), of all without one, by their names."""
    return {file.stem: file for file in sorted(_FOLDER.glob(f"{folder}/*.yaml"))}


def find_config(name: str | Path, beside: Path = Path()) -> Path:
    """The file at the path `name`, seen from the folder `beside`, or the shipped config of that name.

    ConfigError if there is neither, with the nearest name or, for what is no path, all of them.
    """
    path, known = beside / name, shipped()
    # a file of the user's goes before a shipped config of its name
    if not path.is_file() and str(name) in known:
        return known[str(name)]
    if path.exists():
        return path
    from training.type_words import did_you_mean  # late: it loads pydantic, which --help need not

    hint = did_you_mean(path.stem, known)
    if not hint and str(name) == path.stem:
        hint = f"configs that come along: {', '.join(known)}"
    raise ConfigError(f"{path}: No such file or directory{'; ' if hint else ''}{hint.strip()}")
