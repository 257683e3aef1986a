"""YAML, read safely, with what PyYAML passes over refused: keys that are there twice, numbers that are none."""

import math
from pathlib import Path

import yaml

from pruning.errors import Refusal


class ConfigError(Refusal):
    """What is wrong with a config: the file, the key, the value, the choices."""


def parse_yaml_file(path: Path) -> object:
    """What a YAML file holds; ConfigError as of `parse_yaml`."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), source=str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def parse_yaml(text: str, *, source: str, subject: str = "") -> object:
    """What a YAML text holds; ConfigError names `source`, and of a key that is there twice or a number that is none the
    key and the lines.

    YAML itself forbids equal keys; PyYAML takes the last one and says nothing.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(loader, node, source, "", set())
        return loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source}: {subject}not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def _check_node(loader: yaml.SafeLoader, node: yaml.Node, source: str, place: str, seen: set[int]) -> None:
    """ConfigError for the first equal keys and the first number that is not finite, at or below `node`."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[object, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # construct_document refuses it
            merged = key_node.tag == "tag:yaml.org,2002:merge"
            key, line = key_node.value if merged else loader.construct_object(key_node), key_node.start_mark.line + 1
            name = f"{place}.{key}" if place else str(key)
            if key in lines:
                raise ConfigError(f"{source}: {name}: this key is there twice, in lines {lines[key]} and {line}")
            lines[key] = line
            _check_node(loader, value_node, source, name, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _check_node(loader, item, source, f"{place}.{number}", seen)
    elif node.tag == "tag:yaml.org,2002:float" and not math.isfinite(loader.construct_object(node)):
        line = node.start_mark.line + 1
        raise ConfigError(f"{source}: {place or 'the value'}: {node.value} in line {line} is no finite number")
