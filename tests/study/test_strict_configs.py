"""What YAML would take in silence: keys that are there twice, numbers that are none, empty lists of what is to run."""

from pathlib import Path

import pytest
from filelock import FileLock
from support.tiny_study import DIGITS

from detect.settings import DetectorSettings
from study.config.load import load_config, read_yaml
from study.config.schema import StudyConfig
from study.plan.load import load_study
from study.prune_one.arguments import add_arguments, read_words
from study.run.launch import make_parser
from study.run.watch import check_begun
from study.stages.store import RunDir
from training.strict_yaml import ConfigError, parse_yaml


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", r"config\.yaml: a: this key is there twice, in lines 1 and 3"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", r"a\.b: .* in lines 2 and 4"),
        ("a:\n- x: 1\n- {y: 1, y: 2}\n", r"a\.1\.y: .* in lines 3 and 3"),
        ('a: 1\n"a": 2\n', r"a: .* in lines 1 and 2"),
        ("1: a\n0x1: b\n", r"1: .* in lines 1 and 2"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", r"y\.<<: .* in lines 3 and 4"),
        ("a: .nan\n", r"a: \.nan in line 1 is no finite number"),
        ("a:\n- 1\n- -.inf\n", r"a\.1: -\.inf in line 3 is no finite number"),
        ("a: 1.0e+999\n", r"a: 1\.0e\+999 in line 1 is no finite number"),
    ],
)
def test_what_yaml_would_take_in_silence_is_refused_with_its_lines(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as error:
        read_yaml(write(tmp_path / "config.yaml", text))
    assert "\n" not in str(error.value)


def test_equal_keys_are_refused_in_a_base_and_in_an_override_too(tmp_path):
    write(tmp_path / "base.yaml", "a: 1\na: 2\n")
    with pytest.raises(ConfigError, match=r"base\.yaml: a: .* in lines 1 and 2"):
        read_yaml(write(tmp_path / "mine.yaml", "_base_: base.yaml\n"))
    with pytest.raises(ConfigError, match=r"override 'prune=\{ratio: 0.5, ratio: 0.7\}': ratio: .* twice"):
        load_config(StudyConfig, DIGITS, ["prune={ratio: 0.5, ratio: 0.7}"])
    with pytest.raises(ConfigError, match="no finite number"):
        load_config(StudyConfig, DIGITS, ["classifier.train.lr=.inf"])


def test_a_merged_mapping_may_be_changed():
    assert parse_yaml("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\nz: *x\n", source="text")["y"] == {"a": 3, "b": 2}


def test_yaml_without_end_is_one_sentence():
    with pytest.raises(ConfigError, match="text: not valid YAML"):
        parse_yaml("[" * 5000 + "]" * 5000, source="text")


def test_equal_keys_in_a_detectron2_file_are_refused(tmp_path):
    path = write(tmp_path / "mine.yaml", "MODEL:\n  MASK_ON: true\n  MASK_ON: false\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: MODEL\.MASK_ON: .* in lines 2 and 3"):
        DetectorSettings(config_file=path)


def test_equal_keys_in_an_option_of_the_pruner_are_refused(tmp_path):
    words = [
        "--arch",
        "resnet20",
        "--method",
        "slimming",
        "--out",
        str(tmp_path),
        "--arch-options",
        "width={a: 1, a: 2}",
    ]
    with pytest.raises(ValueError, match="twice"):
        read_words(vars(make_parser("", add_arguments).parse_args(words)))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pipelines=[]", r"pipelines: \[\] is empty"),
        ("pipelines={}", r"pipelines: \{\} is empty"),
        ("pipelines=[unpruned, unpruned]", "pipelines: .* repeat themselves"),
        ("grid={}", r"grid: \{\} is empty"),
        ("grid={prune.ratio: []}", "grid.prune.ratio has no value"),
        ("grid={prune.ratio: [0.5, 0.5]}", "grid.prune.ratio: .* repeat themselves"),
        ("variants={}", r"variants: \{\} is empty"),
        ("seeds=[]", "seeds: .*at least 1"),
        ("detector.model.strides=[]", "detector.model.strides: .*at least 1"),
        ("detector.model.anchor_sizes=[]", "detector.model.anchor_sizes: .*at least 1"),
        ("classifier.train.gamma='nan'", "classifier.train.gamma: .*finite"),
        (
            "detector.dataset={voc: {also: [{rot: x}]}}",
            "detector.dataset.voc.also.0.rot: unknown key; did you mean 'root'",
        ),
    ],
)
def test_nothing_to_run_and_what_is_no_number_are_refused(override, words):
    with pytest.raises(ConfigError, match=words) as error:
        load_config(StudyConfig, DIGITS, [override])
    assert "\n" not in str(error.value)


def test_null_takes_away_what_a_base_says(tmp_path):
    path = write(tmp_path / "mine.yaml", f"_base_: {DIGITS}\ngrid: {{prune.ratio: [0.3, 0.5]}}\n")
    assert load_config(StudyConfig, path).grid
    assert load_config(StudyConfig, write(tmp_path / "other.yaml", f"_base_: {path}\ngrid: null\n")).grid == {}


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("[{shape: {ratoi: 0.3}}, scratch_e, detect]", r"pipelines.mine: shape: prune\.ratoi: .*known keys: ratio"),
        ("[{classify: {lr: fast}}, detect]", r"pipelines.mine: classify: changes\.lr: .*number"),
        ("[]", "pipelines.mine: a chain ends with a trained detector, this one with nothing"),
    ],
)
def test_a_wrong_change_of_a_step_is_one_sentence(chain, words):
    with pytest.raises(ConfigError, match=words) as error:
        load_study(DIGITS, [f"pipelines={{mine: {chain}}}"])
    assert "\n" not in str(error.value)


def test_a_study_that_has_not_begun_cannot_be_watched(tmp_path):
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "study.json", "{}")
    with pytest.raises(ValueError, match=r"mine: no study of this name has begun there; studies in .*: other$"):
        check_begun(RunDir(tmp_path / "mine"))
    check_begun(RunDir(tmp_path / "other"))
    (tmp_path / "mine").mkdir()
    with FileLock(RunDir(tmp_path / "mine").at_work):  # it starts now
        check_begun(RunDir(tmp_path / "mine"))
