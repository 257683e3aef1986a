from pathlib import Path

import pytest

from study.config.load import load_config, merge, read_yaml
from study.config.schema import StudyConfig
from training.strict_yaml import ConfigError

DIGITS = Path(__file__).parents[3] / "configs" / "pipelines" / "digits.yaml"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_merge_goes_key_by_key_through_mappings_and_replaces_lists():
    assert merge({"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9]}}) == {"a": {"b": 1, "c": [9]}, "d": 3}


def test_later_bases_and_the_file_itself_win(tmp_path):
    write(tmp_path / "one.yaml", "a: 1\nb: 1\nc: 1\n")
    write(tmp_path / "two.yaml", "b: 2\nc: 2\n")
    path = write(tmp_path / "three.yaml", "_base_: [one.yaml, two.yaml]\nc: 3\n")
    assert read_yaml(path) == {"a": 1, "b": 2, "c": 3}


def test_a_study_of_another_name_does_not_inherit_a_title(tmp_path):
    write(tmp_path / "base.yaml", "name: digits\ntitle: On handwritten digits\n")
    assert read_yaml(write(tmp_path / "mine.yaml", "_base_: base.yaml\nname: mine\n")) == {"name": "mine"}
    own = write(tmp_path / "own.yaml", "_base_: base.yaml\nname: mine\ntitle: On my pictures\n")
    assert read_yaml(own)["title"] == "On my pictures"
    assert (
        read_yaml(write(tmp_path / "same.yaml", "_base_: base.yaml\nseeds: [0]\n"))["title"] == "On handwritten digits"
    )


def test_a_base_that_leads_back_is_refused(tmp_path):
    path = write(tmp_path / "a.yaml", "_base_: b.yaml\n")
    write(tmp_path / "b.yaml", "_base_: a.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "a config is a mapping"),
        ("_base_: 3\n", "`_base_` is the path"),
        ("_base_: absent.yaml\n", "absent.yaml: No such file"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(tmp_path / "config.yaml", text))


def test_the_demo_is_valid_and_overrides_change_it():
    config = load_config(StudyConfig, DIGITS, ["seeds=[3, 4]", "prune.ratio=0.7", "detector.model.fpn_channels=32"])
    assert config.seeds == (3, 4)
    assert config.prune.selection().ratio == 0.7
    assert config.detector.model.fpn_channels == 32


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("clasifier.arch=resnet18", ["clasifier", "unknown key", "did you mean 'classifier'"]),
        ("classifier.train.epoch=3", ["classifier.train.epoch", "did you mean 'epochs'", "batch_size"]),
        ("classifier.arch=resnet19", ["classifier.arch", "unknown architecture 'resnet19'", "resnet18"]),
        ("prune.ratio=1.5", ["prune.ratio", "less than 1", "1.5"]),
        ("prune.options={foo: 1}", ["method 'l1_filter' has no option 'foo'"]),
        ("prune.method=l3", ["unknown pruning method 'l3'", "l1_filter"]),
        ("prune.target=resnet99-A", ["unknown target 'resnet99-A'", "resnet56-A"]),
        ("prune.target=resnet56-A", ["already says what is removed", "ratio"]),
        ("classifier.train.epochs=many", ["classifier.train.epochs", "whole number (at least 1)", "many"]),
        ("classifier.train.lr=-1", ["classifier.train.lr", "greater than 0"]),
        ("classifier.dataset.name=mnistt", ["unknown data set 'mnistt'", "digits"]),
        ("classifier.dataset.options.size=3", ["unknown option", "'size'", "image_size"]),
        ("classifier.fine_tune.epoch=3", ["fine_tune.epoch", "known keys", "epochs"]),
        ("classifier.scratch.epochs=3", ["scratch.epochs", "budget"]),
        ("detector.fine_tune.iterations=3", ["fine_tune.iterations", "prune_at"]),
        ("detector.from_scratch.norm=FrozenBN", ["from_scratch", "trainable norm"]),
        ("detector.dataset.coco.train.annotations=x.json", ["detector.dataset"]),
        ("seeds=[]", ["seeds", "at least 1"]),
        ("seeds=[1, 1]", ["seeds", "repeat"]),
        ("name=../evil", ["name", "letters, digits"]),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence_with_override_key_and_choices(override, parts):
    with pytest.raises(ConfigError) as error:
        load_config(StudyConfig, DIGITS, [override])
    for part in [f"override {override!r}: ", *parts]:
        assert part in str(error.value)


def test_an_override_must_be_an_assignment():
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        load_config(StudyConfig, DIGITS, ["seeds"])


@pytest.mark.parametrize(
    ("override", "beginnings"),
    [
        ("prune.ratio=1.5", ["prune.ratio: 1.5 does not fit; expected: fraction"]),
        ("prune.ratio=[0.5, 2]", ["prune.ratio: [0.5, 2] does not fit; expected: fraction"]),
        ("classifier.normalization={mean: [0.5]}", ["classifier.normalization.std: this key is required"]),
        (
            "classifier.normalization={mean: [a], std: [0]}",
            [
                "classifier.normalization.mean.0: 'a' does not fit; expected: number",
                "classifier.normalization.std.0: 0 does not fit; expected: number",
            ],
        ),
    ],
)
def test_a_value_of_several_forms_is_named_by_its_key_alone_and_once(override, beginnings):
    with pytest.raises(ConfigError) as error:
        load_config(StudyConfig, DIGITS, [override])
    lines = str(error.value).splitlines()
    assert len(lines) == len(beginnings)
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(f"override {override!r}: {beginning}")
