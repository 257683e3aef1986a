"""A study's config and its routes, or in one sentence what does not fit."""

from collections.abc import Sequence
from pathlib import Path

from study.config.load import in_words, load_config, source_of
from study.config.schema import StudyConfig
from study.plan.pipelines import Route, expand
from study.stages.contents import Contents
from training.strict_yaml import ConfigError


def load_study(
    path: Path, overrides: Sequence[str] = (), contents: Contents | None = None
) -> tuple[StudyConfig, list[Route]]:
    """The config and its routes; ConfigError in one sentence if anything does not fit."""
    config = load_config(StudyConfig, path, overrides)
    try:
        return config, expand(config, source=source_of(path, overrides, "grid", "variants"), contents=contents)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{_blamed(str(error), path, overrides, contents)}: {error}") from error


def _blamed(sentence: str, path: Path, overrides: Sequence[str], contents: Contents | None) -> str:
    """The override that brings a mistake, or else the file."""
    # sentences begin with the key that they are about; where no override has it, one of another key may be to blame
    source = source_of(path, overrides, sentence.partition(":")[0])
    for override in reversed(overrides if source == str(path) else []):
        try:
            others = [other for other in overrides if other != override]
            expand(load_config(StudyConfig, path, others), source=str(path), contents=contents)
        except ValueError:
            continue
        return in_words(override)
    return source
