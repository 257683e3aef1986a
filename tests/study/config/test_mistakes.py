"""What newcomers get wrong in a config, and the one sentence that each of them reads."""

from pathlib import Path

import pytest

from study.config.load import load_config
from study.config.schema import ClassifyConfig, DetectConfig, StudyConfig
from study.plan.load import load_study
from study.run.launch import launch
from training.strict_yaml import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
DIGITS = CONFIGS / "pipelines" / "digits.yaml"
RATIO = "fraction (at least 0 and less than 1) or list of fractions (each at least 0 and less than 1)"
PERCENT = f"50 does not fit; expected: {RATIO}; 50 % is 0.5"
SEEDS = "list (at least 1 item) of whole numbers (each at least 0)"
MISTAKES = {
    "prune.ratio=50": f"prune.ratio: {PERCENT}",
    "prune.ratio=-0.5": f"prune.ratio: -0.5 does not fit; expected: {RATIO}",
    "prune.ratio=half": f"prune.ratio: 'half' does not fit; expected: {RATIO}",
    "prune.ratio=[0.5, 2]": f"prune.ratio: [0.5, 2] does not fit; expected: {RATIO}",
    "prune.ratio=null": "prune.ratio: null takes back a ratio where target, target_macs or target_params says how much",
    "prune=0.5": "prune: 0.5 does not fit; expected: section",
    "prune.rati=0.5": "prune.rati: unknown key; did you mean 'ratio'? known keys: ratio, level,",
    "ratio=0.5": "ratio: unknown key; did you mean 'prune.ratio'? known keys: name, title,",
    "lr=0.1": "lr: unknown key; did you mean 'classifier.train.lr'? known keys: name, title,",
    "seeds=3": f"seeds: 3 does not fit; expected: {SEEDS}, such as [3]",
    "seeds=[-1]": "seeds.0: -1 does not fit; expected: whole number (at least 0)",
    "seeds=[a]": "seeds.0: 'a' does not fit; expected: whole number (at least 0)",
    "seeds=[]": f"seeds: [] does not fit; expected: {SEEDS}",
    "seeds=null": f"seeds: null does not fit; expected: {SEEDS}",
    "seeds=[1, 1]": "seeds: [1, 1] repeat themselves",
    "classifier.train.epochs=many": "classifier.train.epochs: 'many' does not fit; expected: whole number (at least 1)",
    "classifier.train.epochs=2.5": "classifier.train.epochs: 2.5 does not fit; expected: whole number (at least 1)",
    "classifier.train.epochs=0": "classifier.train.epochs: 0 does not fit; expected: whole number (at least 1)",
    "classifier.train={epochs: 3, lr: 0.1}": (
        "classifier.train.batch_size: this key is required; expected: whole number (at least 1)"
    ),
    "classifier.train.optimizer=adamw": (
        "classifier.train.optimizer: 'adamw' does not fit; did you mean 'adam'? expected: one of sgd, adam"
    ),
    "classifier.train.augmentation=flip": "classifier.train.augmentation: unknown augmentation 'flip'; choose from",
    "classifier.train.nesterov=maybe": "classifier.train.nesterov: 'maybe' does not fit; expected: true or false",
    "classifier.fine_tune.epoch=3": "classifier.fine_tune.epoch: unknown key; did you mean 'epochs'? known",
    "classifier.fine_tune.lr=fast": "classifier.fine_tune.lr: 'fast' does not fit; expected: number (greater than 0)",
    "classifier.dataset.name=mnits": "classifier.dataset.name: unknown data set 'mnits'; did you mean 'mnist'?",
    "classifier.dataset.options.n_val=few": "classifier.dataset: option 'n_val' of data set 'digits': 'few' does not",
    "classifier.arch=resnet81": "classifier.arch: unknown architecture 'resnet81'; did you mean 'resnet18'? known:",
    "classifier.normalization=datset": (
        "classifier.normalization: 'datset' does not fit; did you mean 'dataset'? expected: section, or 'dataset', or"
    ),
    "classifier.normalization={mean: [0.5]}": (
        "classifier.normalization.std: this key is required; expected: list (at least 1 item) of numbers"
    ),
    "prune.method=l1": "prune.method: unknown pruning method 'l1'; did you mean 'l1_filter'? choose from l1_filter,",
    "prune.options.foo=1": "prune: method 'l1_filter' has no option 'foo'; known: none",
    "grid={prune.ratio: 0.5}": "grid.prune.ratio: 0.5 does not fit; expected: list of values, such as [0.5]",
    "grid={prune.ratio: [0.5, 50]}": f"grid prune.ratio=50: prune.ratio: {PERCENT}",
    "pipelines=unpruned": "pipelines: 'unpruned' does not fit; expected: list of names, or mapping of names to lists",
    "pipelines=[unprund]": "pipelines: unknown pipeline 'unprund'; ",
    "detector.model.norm=bn": "detector.model.norm: 'bn' does not fit; did you mean 'BN'? expected: one of FrozenBN,",
    "detector.dataset.digits.digit_size=[16]": (
        "detector.dataset.digits.digit_size: [16] does not fit; expected: list of 2 whole numbers (each at least 1)"
    ),
    "machine.executor=slrum": "machine.executor: 'slrum' does not fit; did you mean 'slurm'? expected: one of local,",
    "prune.layers={1: 0.5}": 'prune.layers: {"1": 0.5} does not fit; expected: mapping of names to fractions',
    "prune.ratio=[0.1, 0.2, 0.3, 0.4, 0.5]": (
        "pipelines.prune_then_transfer: prune: prune.ratio: [0.1, 0.2, 0.3, 0.4, 0.5] are ratios of 5 stages, and the"
    ),
    "prune={method: guided, level: global}": "prune: level 'global': method 'guided' ranks at level 'layer'",
    "prune={1: 0.5}": "prune.1: unknown key; known keys: ratio,",
    "evaluate.scenes={a: 1}": 'evaluate.scenes: {"a": 1} does not fit; expected: whole number (at least 0)',
}
INNER_WORDS = ("Input should", "validation error", "type=", "pydantic", "Extra inputs", "Value error", "function-")


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_in_an_override_is_one_sentence_that_blames_it(override):
    with pytest.raises(ConfigError) as error:
        load_study(DIGITS, ["machine.jobs=2", override, "name=mine"])
    message = str(error.value)
    assert message.startswith(f"override {override!r}: {MISTAKES[override]}")
    assert "\n" not in message
    assert not [words for words in INNER_WORDS if words in message]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prune: {ratio: 50}", f"prune.ratio: {PERCENT}"),
        ("seeds: 3", f"seeds: 3 does not fit; expected: {SEEDS}, such as [3]"),
        ("seed: [0]", "seed: unknown key; did you mean 'seeds'? known keys: name,"),
        ("detector: {train: {iteration: 3}}", "detector.train.iteration: unknown key; did you mean 'iterations'?"),
    ],
)
def test_a_mistake_in_the_file_blames_the_file_whatever_is_overridden(tmp_path, text, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_base_: {DIGITS}\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(StudyConfig, path, ["prune.round_to=8", "detector.train.lr=0.01"])
    assert str(error.value).startswith(f"{path}: {expected}")


def test_several_mistakes_are_a_line_each():
    with pytest.raises(ConfigError) as error:
        load_config(StudyConfig, DIGITS, ["seeds=3", "prune.ratio=50"])
    first, second = str(error.value).splitlines()
    assert first.startswith("override 'seeds=3': seeds: ")
    assert second.startswith("override 'prune.ratio=50': prune.ratio: ")


def test_what_only_several_overrides_bring_is_said_of_them_all():
    with pytest.raises(ConfigError) as error:
        load_config(StudyConfig, DIGITS, ["classifier.weights=w.pt", "classifier.rewind=5", "seeds=[0]"])
    assert str(error.value) == (
        "override 'classifier.rewind=5': classifier.rewind: weights that are given have no early iterations to go back"
        " to; leave out one"
    )
    with pytest.raises(ConfigError, match=r"^overrides 'prune\.level=global', 'prune\.round_to=8': prune: "):
        load_config(StudyConfig, DIGITS, ["prune.level=global", "prune.round_to=8", "seeds=[0]"])


@pytest.mark.parametrize(
    ("schema", "file", "override", "sentence"),
    [
        (ClassifyConfig, "classify/digits_resnet10.yaml", "regime=scratch", "regime: unknown regime 'scratch'; did"),
        (ClassifyConfig, "classify/digits_resnet10.yaml", "seeds=[0]", "seeds: unknown key; did you mean 'seed'?"),
        (DetectConfig, "detect/digits_fpn.yaml", "init=rand", "init: 'rand' does not fit; did you mean 'random'?"),
    ],
)
def test_launchers_say_it_in_one_line_and_exit_with_2(capsys, schema, file, override, sentence):
    def work():
        load_config(schema, CONFIGS / file, [override])
        return 0

    assert launch(work) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: override {override!r}: {sentence}")
    assert said.count("\n") == 1
