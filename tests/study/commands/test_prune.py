"""`prune-transfer prune`: what it prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from classify.models import list_models
from pruning.methods import METHODS
from pruning.targets import TARGETS
from study.commands.prune import main
from study.prune_one.arguments import add_arguments, read_pairs, read_words
from study.prune_one.catalogue import catalogue, method_summary
from study.run.launch import launch, make_parser

ROOT = Path(__file__).resolve().parents[3]


def call(*words):
    return launch(lambda: main(make_parser("", add_arguments).parse_intermixed_args([str(word) for word in words])))


def test_everything_is_listed():
    text = catalogue()
    assert all(f" {name}" in text for name in [*list_models(), *METHODS, *TARGETS])
    assert "options: positions_per_image=10, rescale=True" in text
    assert "[needs --data: activations]" in text


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_is_in_a_sentence(method):
    assert 20 < len(method_summary(method)) < 300


def test_list_needs_nothing_else(capsys):
    assert call("--list") == 0
    assert capsys.readouterr().out.strip() == catalogue()


def test_last_line_is_json(tmp_path, capsys):
    network = ["--arch", "cifar_resnet", "--arch-options", "depth=8", "width=0.5", "--seed", "3"]
    assert call(*network, "--method", "l1_filter", "--ratio", "0.5", "0.25", "0", "--out", tmp_path / "out") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["arch"], found["method"], found["ratio"], found["seed"]) == (
        "cifar_resnet",
        "l1_filter",
        [0.5, 0.25, 0.0],
        3,
    )
    assert found["out"] == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "resnet56-A"], "--out DIR is needed"),
        (["--out", "x", "--target", "nosuch"], "unknown target 'nosuch'"),
        (["--out", "x", "--target", "resnet56-A", "--layer", "layer1.*=0.3"], "drop layers"),
        (["--out", "x", "--target", "resnet56-A", "--option", "a=1"], "leave out --option"),
        (["--out", "x", "--ratio", "2"], "error: --ratio 2.0: prune.ratio: 2.0 does not fit; expected: fraction"),
        (["--out", "x", "--target-macs", "2"], "error: --target-macs 2.0: prune.target_macs: 2.0 does not fit"),
        (["--out", "x", "--target-macs", "0.5", "--ratio", "0.5"], "`ratio` does not go with it"),
        (["--out", "x", "prune.ratoi=2"], "override 'prune.ratoi=2': prune.ratoi: unknown key; did you mean 'ratio'?"),
        (["--out", "x", "--layer", "layer1.*"], "--layer 'layer1.*' is not of the form layer=ratio"),
        (["--out", "x", "--layer", "a=half"], "--layer 'a=half' is not of the form layer=ratio"),
        (["--out", "x", "--layer", "a=0.1", "a=0.2"], "--layer names 'a' twice"),
        (["--out", "x", "--target", "resnet56-A", "--data-images", "3"], "need --data"),
        (
            ["--out", "x", "--arch", "conv2", "--method", "magnitude", "--option", "exact"],
            "not of the form key=value",
        ),
    ],
)
def test_errors_are_one_sentence_and_code_2(capsys, words, sentence):
    assert call(*words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and sentence in error and "\n" not in error


def config(words):
    return read_words(vars(make_parser("", add_arguments).parse_intermixed_args(words.split())))[0]


def test_words_are_short_forms_of_keys():
    words = "--out o --arch resnet20 --method soft_filter --ratio 0.5 --skip x y.* --scope all --round-to 8 --force"
    more = "--option zero_norm=false --data digits --data-options image_size=64 --data-images 7 --cap 2 --level layer"
    keys = (
        "--out o classifier.arch=resnet20 prune.method=soft_filter prune.ratio=0.5 prune.skip=[x,y.*] prune.scope=all"
        " prune.round_to=8 prune.options.zero_norm=false classifier.dataset.name=digits classifier.scratch_b_cap=2"
        " classifier.dataset.options.image_size=64 prune.calibration.images=7 prune.level=layer"
    )
    found = config(f"{words} {more}")
    assert found == config(keys)
    assert found.prune.skip == ("x", "y.*") and found.prune.options == {"zero_norm": False}
    assert found.classifier.dataset.options == {"image_size": 64}


def test_shares_to_leave_and_the_device_are_short_forms_too():
    words = "--out o --arch resnet20 --method random --target-params 0.3 --device cpu"
    keys = "--out o classifier.arch=resnet20 prune.method=random prune.target_params=0.3 device=cpu"
    assert config(words) == config(keys)
    assert config(words.replace("params", "macs")).prune.target_macs == 0.3


def test_keys_stand_between_words_and_win_over_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("prune: {method: random, ratio: 0.25}\nclassifier: {arch: resnet20}\n")
    found = config(f"prune.scope=all --config {path} --out o prune.skip=[x] --ratio 0.5")
    assert (found.prune.method, found.prune.ratio, found.prune.scope) == ("random", 0.5, "all")
    assert found.prune.skip == ("x",) and found.classifier.arch == "resnet20"


def test_ratios_by_layer_are_words_too():
    found = config("--out o --arch resnet20 --method l1_filter --layer layer2.*=0.3 x=0 --layer y=5e-1")
    assert found.prune.layers == {"layer2.*": 0.3, "x": 0.0, "y": 0.5}


def test_weights_are_a_file_or_a_name():
    words = "--out o --arch resnet18 --method l1_filter --ratio 0.5 --weights"
    assert config(f"{words} mine.pth").classifier.weights == Path("mine.pth")
    assert config(f"{words} torchvision:DEFAULT").classifier.weights == "torchvision:DEFAULT"


def test_values_of_pairs_are_yaml():
    assert read_pairs("--option", ["a=1", "b=no", "c={macs: 0.5}", "d=x=y"]) == {
        "a": 1,
        "b": False,
        "c": {"macs": 0.5},
        "d": "x=y",
    }
    with pytest.raises(ValueError, match=r"--option 'a=\[1': the value is not valid YAML"):
        read_pairs("--option", ["a=[1"])


def test_program_works_without_detectron2(tmp_path):
    code = (
        "import runpy, sys; sys.modules['detectron2'] = None;"
        f"sys.argv = ['prune.py', '--target', 'resnet56-B', '--out', {str(tmp_path / 'out')!r}];"
        f"runpy.run_path({str(ROOT / 'tools' / 'prune.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["scratch_b_epochs"] == 220
