"""The plan as data: JSON, composition, refusals. Selected, scattered and dropped parts: test_structure_surgery.py."""

import json

import pytest

from pruning.plan import PruningPlan

PLAN = PruningPlan(
    "resnet20",
    {"width": 0.5},
    {"layer1.0.conv1": (0, 2, 5), "layer1.1.conv1": (7,)},
    {"layer1.0.conv1": 8, "layer1.1.conv1": 8},
)


def test_json_round_trip_is_exact():
    assert PruningPlan.from_json(PLAN.to_json()) == PLAN
    empty = PruningPlan("vgg16")
    assert PruningPlan.from_json(empty.to_json()) == empty


def test_json_has_one_line_a_layer():
    lines = PLAN.to_json().splitlines()
    assert '  "layer1.0.conv1": [0, 2, 5],' in lines
    assert '  "layer1.1.conv1": [7]' in lines


def test_plan_is_read_from_a_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(PLAN.to_json(), encoding="utf-8")
    assert PruningPlan.load(path) == PLAN
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"plan\.json: not JSON"):
        PruningPlan.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "here: format 99 is unknown"),
        ({"keep": [1, 2]}, "here: not a pruning plan"),
        ({"keep": {"layer1.0.conv1": [0]}}, "name different groups: .'layer1.1.conv1'."),
        ({"keep": {"layer1.0.conv1": [0, 8], "layer1.1.conv1": [1]}}, r"'layer1.0.conv1' must ascend within 0\.\.7"),
        ({"arch": None}, "here: not a pruning plan"),
        ({"widths": {"layer1.0.conv1": "8", "layer1.1.conv1": 8}}, "here: not a pruning plan"),
    ],
)
def test_json_that_is_no_plan_is_refused(change, message):
    data = {**json.loads(PLAN.to_json()), **change}
    with pytest.raises(ValueError, match=message):
        PruningPlan.from_json(json.dumps(data), source="here")


@pytest.mark.parametrize("key", ["format", "arch", "options", "widths", "keep"])
def test_missing_key_is_named(key):
    data = json.loads(PLAN.to_json())
    del data[key]
    with pytest.raises(ValueError, match=f"here: not a pruning plan .*{key}"):
        PruningPlan.from_json(json.dumps(data), source="here")


@pytest.mark.parametrize("text", ["", "3", "[]", "null", '"plan"', "nonsense"])
def test_text_that_is_no_plan_is_refused(text):
    with pytest.raises(ValueError, match="here: not"):
        PruningPlan.from_json(text, source="here")


@pytest.mark.parametrize("kept", [(2, 1), (1, 1), (-1, 2), (0, 4), (0, 1, 2, 3, 4), (0.5, 1), (False, True), ("0",)])
def test_indices_must_ascend_within_the_layer(kept):
    with pytest.raises(ValueError, match=r"kept channels of 'conv1' must ascend within 0\.\.3"):
        PruningPlan("net", keep={"conv1": kept}, widths={"conv1": 4})


def test_empty_layer_is_refused():
    with pytest.raises(ValueError, match="'conv1' would keep no channel of 4"):
        PruningPlan("net", keep={"conv1": ()}, widths={"conv1": 4})


def test_kept_counts():
    assert PLAN.kept_counts() == {"layer1.0.conv1": 3, "layer1.1.conv1": 1}


def test_composition_counts_the_survivors():
    first = PruningPlan("net", keep={"a": (1, 3, 4, 7)}, widths={"a": 8})
    later = PruningPlan("net", keep={"a": (0, 2), "b": (1,)}, widths={"a": 4, "b": 2})
    assert first.then(later) == PruningPlan("net", keep={"a": (1, 4), "b": (1,)}, widths={"a": 8, "b": 2})


def test_composition_is_refused_where_widths_or_networks_differ():
    first = PruningPlan("net", keep={"a": (1, 3, 4, 7)}, widths={"a": 8})
    with pytest.raises(ValueError, match="group 'a' has 4 channels, not 8"):
        first.then(first)
    with pytest.raises(ValueError, match="a plan for 'other' cannot follow a plan for 'net'"):
        first.then(PruningPlan("other"))
    with pytest.raises(ValueError, match="cannot follow"):
        first.then(PruningPlan("net", {"width": 2.0}))
