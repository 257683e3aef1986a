"""What a user gives to Detectron2: the keys of a YAML file and single overrides, checked against who reads them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from detect.detectron2_keys import AS_IT_IS, BECAUSE, CHOICES, HEAD_BY, OURS, READ, UNREAD
from detect.heads import HEADS, heads_that
from pruning.errors import Refusal
from training.strict_yaml import parse_yaml_file

FREEZE_AT = "MODEL.BACKBONE.FREEZE_AT"
_NORM = "MODEL.RESNETS.NORM"


@dataclass(frozen=True)
class Given:
    """The value of a Detectron2 key, of the type that Detectron2 wants, and where it was given."""

    value: object
    source: str


def read_config_file(path: Path) -> dict[str, object]:
    """The keys of a Detectron2 YAML and of its `_BASE_`s, dotted; ValueError names the file."""
    if path.suffix == ".py":
        raise Refusal(f"{path}: a LazyConfig of Detectron2 is a program, which is not run; give a YAML file")
    _check_files(path, ())
    try:
        data = CfgNode.load_yaml_with_base(str(path), allow_unsafe=False)
    except (OSError, AttributeError, TypeError, AssertionError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise Refusal(f"{path}: not a config of Detectron2: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise Refusal(f"{path}: not a config of Detectron2: it holds {type(data).__name__}, no keys")
    return _flat(data)


def _check_files(path: Path, before: tuple[Path, ...]) -> None:
    """ValueError for a file of the chain of `_BASE_`s that is not there, leads back to itself, or has a key twice."""
    if path in before:
        raise Refusal(f"{path}: `_BASE_` leads back to itself")
    if not path.is_file():
        raise Refusal(f"{path}: no such Detectron2 config file")
    content = parse_yaml_file(path)
    base = content.get("_BASE_") if isinstance(content, dict) else None
    for name in [base] if isinstance(base, str) else base or []:
        _check_files(path.parent / Path(name).expanduser(), (*before, path))


def given_keys(config_file: Path | Mapping[str, object] | None, overrides: Mapping[str, object]) -> dict[str, Given]:
    """What a file and overrides say, the latter over the former; a file that was read already: `with_content`.

    ValueError for keys that Detectron2 does not know and values that are not of its type.
    """
    content = with_content(config_file) if isinstance(config_file, Path) else config_file
    typed = get_cfg()
    given: dict[str, Given] = {}
    if content:
        paths, keys = content["paths"], content["keys"]
        assert isinstance(paths, Mapping) and isinstance(keys, Mapping)  # see `with_content`
        source = str(paths["file"])
        given = {key: Given(_typed(typed, key, value, source), source) for key, value in keys.items()}
    mine = _flat(overrides)
    return given | {key: Given(_typed(typed, key, value, "overrides"), "overrides") for key, value in mine.items()}


def with_content(path: Path) -> dict[str, object]:
    """A config file with what it says, so that its content and not its name defines a result."""
    return {"paths": {"file": str(path)}, "keys": read_config_file(path)}


def head_of(stated: str | None, given: Mapping[str, Given]) -> str:
    """The head that is stated, or else the first that Detectron2's keys allow; ValueError where they allow none."""
    asked = {key: g for key, g in given.items() if key in HEAD_BY and g.value in CHOICES.get(key, (g.value,))}
    allowed = heads_that(lambda head: all(HEAD_BY[key](head) == g.value for key, g in asked.items()))
    if allowed and (stated is None or stated in allowed):
        return stated or allowed[0]
    keys = " and ".join(f"{key}={g.value!r}" for key, g in asked.items())
    if stated is None:
        raise Refusal(f"no head has {keys}: choose detector.model.head from {', '.join(HEADS)}")
    asks = " or ".join(map(repr, allowed)) or "none that there is"
    raise Refusal(f"head={stated!r} and Detectron2's keys, which ask for {asks}, differ: {keys}")


def check_read(given: Mapping[str, Given], head: str) -> None:
    """ValueError that names every given key which has no effect with this head, and what to do instead."""
    problems = [f"{g.source}: {key}={g.value!r} {why}" for key, g in given.items() if (why := _objection(key, g, head))]
    if problems:
        raise Refusal("; ".join(problems))


def strides_of(given: Mapping[str, Given]) -> tuple[int, ...] | None:
    """The strides of Detectron2's names of a ResNet's features, res2 for 4; None where none are given."""
    keys = [key for key in ("MODEL.FPN.IN_FEATURES", "MODEL.RESNETS.OUT_FEATURES") if key in given]
    found = {}
    for key in keys:
        names = given[key].value
        assert isinstance(names, list)
        numbers = [str(name).removeprefix("res") for name in names]
        if not numbers or not all(number.isdigit() for number in numbers):
            raise Refusal(
                f"{given[key].source}: {key}={names!r}: features are res1 (stride 2), res2 (4), ... here;"
                " or set detector.model.strides"
            )
        found[key] = tuple(2 ** int(number) for number in numbers)
    if len(set(found.values())) > 1:
        raise Refusal(f"{' and '.join(keys)} name different features: {' and '.join(map(str, found.values()))}")
    return next(iter(found.values()), None)


def settled(stated: Mapping[str, Any], given: Mapping[str, Given]) -> dict[str, Any]:
    """Head and strides as the settings that are stated, Detectron2's keys or the defaults say; norm and freeze_at, too.

    ValueError where settings and keys differ.
    """
    head = head_of(stated.get("head"), given)
    said = strides_of(given)
    strides = stated.get("strides") or said or HEADS[head].strides
    if said not in (None, strides):
        raise Refusal(f"strides={strides} and Detectron2's features, of strides {said}, differ")
    found: dict[str, Any] = {"head": head, "strides": strides}
    if "norm" not in stated and _NORM in given:
        found["norm"] = str(given[_NORM].value)
    if "freeze_at" not in stated:
        found["freeze_at"] = _freeze_at(given, strides)
    return found


def _freeze_at(given: Mapping[str, Given], strides: tuple[int, ...]) -> int:
    """Detectron2 counts a ResNet's stages, 2 for that of stride 4; ours are those of the strides."""
    if FREEZE_AT not in given or not given[FREEZE_AT].value:
        return 0
    count = int(str(given[FREEZE_AT].value)) - stages_before(strides)
    if count < 1:
        raise Refusal(
            f"{given[FREEZE_AT].source}: {FREEZE_AT}={given[FREEZE_AT].value} ends before the first of strides"
            f" {strides}, up to which layers are frozen together: set detector.model.freeze_at to 0 or 1 instead"
        )
    return count


def stages_before(strides: tuple[int, ...]) -> int:
    """Stages of a ResNet in Detectron2 that lie before the first stride, other than the stem."""
    return int(math.log2(strides[0])) - 2


def check_agreement(given: Mapping[str, Given], ours: Mapping[str, tuple[object, object]]) -> None:
    """ValueError where a key of ours and Detectron2's key for the same are both set, to different values.

    `ours`: Detectron2's key -> (what a key of ours sets it to, that key's own value); only of keys that are set.
    """
    for key in given.keys() & ours.keys():
        value, own = ours[key]
        if plain(value) != plain(given[key].value):
            raise Refusal(
                f"detector.{OURS[key][0]} ({plain(own)!r}) and {given[key].source}: {key}={given[key].value!r} differ;"
                " leave one of the two out"
            )


def plain(value: object) -> object:
    """Tuples as lists, so that equal values are equal."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def set_keys(cfg: CfgNode, values: Mapping[str, object]) -> None:
    """Set keys of a config."""
    for key, value in values.items():
        cfg.merge_from_list([key, value])


def _objection(key: str, given: Given, head: str) -> str | None:
    if key in UNREAD:
        return None if key in AS_IT_IS and AS_IT_IS[key] == given.value else f"has no effect: {UNREAD[key]}"
    heads = OURS[key][1] if key in OURS else READ[key]
    if head not in heads:
        return f"has no effect with head={head!r}, only with {', '.join(heads)}"
    if key in CHOICES and given.value not in CHOICES[key]:
        why = f"{BECAUSE[key]}; " if key in BECAUSE else ""
        return f"cannot be: {why}choose from {', '.join(map(repr, CHOICES[key]))}"
    return None


def _typed(cfg: CfgNode, key: str, value: object, source: str) -> object:
    """The value as Detectron2 takes it."""
    known = READ.keys() | OURS.keys() | UNREAD.keys()
    if key not in known:
        near = get_close_matches(key, known, n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise Refusal(f"{source}: {key} is not a key of Detectron2{hint}")
    if key in UNREAD and key not in AS_IT_IS:
        return value  # refused whatever it is, also by a Detectron2 that has no such key
    try:
        cfg.merge_from_list([key, value])
    except (ValueError, KeyError, AssertionError) as error:
        raise Refusal(f"{source}: {key}={value!r} does not fit: {' '.join(str(error).split())}") from error
    node: object = cfg
    for name in key.split("."):
        node = node[name]  # type: ignore[index]
    return node


def _flat(data: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    keys: dict[str, object] = {}
    for name, value in data.items():
        keys |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return keys
