"""Mistakes of a newcomer, over all commands: no traceback, one line or two, and the cure in it."""

import shlex

import pytest

import prune_transfer

HELP = "--help` shows what there is"
MISTAKES = {
    "": "a command is missing: run, train-cls,",
    "rnu digits": "unknown command 'rnu'; did you mean 'run'?",
    "train_cls digits": "unknown command 'train_cls'; did you mean 'train-cls'?",
    "run": f"the following arguments are required: config; `prune-transfer run {HELP}",
    "run digts": "digts: No such file or directory; did you mean 'digits'?",
    "run mnist": "mnist: this is a classifier's config, which `prune-transfer train-cls` takes",
    "run digits_fpn": "digits_fpn: this is a detector's config, which `prune-transfer train-det` takes",
    "run nothing": "nothing: No such file or directory; configs that come along: variants, cifar10,",
    "run configs/pipelines/digts.yaml": "digts.yaml: No such file or directory; did you mean 'digits'?",
    "run folder": "folder: Is a directory",
    "run empty.yaml": "empty.yaml: a config is a mapping of keys to values, and this is empty",
    "run list.yaml": "list.yaml: a config is a mapping of keys to values, and this is a list",
    "run broken.yaml": "broken.yaml: not valid YAML: ",
    "run mine.yaml": "digit: No such file or directory; did you mean 'digits'?",
    "run digits --dryrun": "unrecognized arguments: --dryrun; did you mean --dry-run?",
    "run digits --jobs many": "error: --jobs=many: machine.jobs: 'many' does not fit; expected: whole number (at least",
    "run digits --jobs 0 seeds=[1]": "error: --jobs=0: machine.jobs: 0 does not fit; expected: whole number (at",
    "run digits --executor slrum": "invalid choice: 'slrum' (choose from 'local', 'slurm')",
    "run digits prune.ratio": "override 'prune.ratio' is not of the form key.path=value",
    "run digits prune.ratio=50": "override 'prune.ratio=50': prune.ratio: 50 does not fit; expected: fraction",
    "run digits prune.ratio=null": "target_params says how much goes, and none of them does; give a fraction",
    "run digits seeds=3": "override 'seeds=3': seeds: 3 does not fit; expected: list (at least 1 item) of whole",
    "run digits seeds=[-1]": "override 'seeds=[-1]': seeds.0: -1 does not fit; expected: whole number (at least 0)",
    "run digits seed=3": "override 'seed=3': seed: unknown key; did you mean 'seeds'?",
    "run digits prune.method=l1": "unknown pruning method 'l1'; did you mean 'l1_filter'?",
    "run digits prune.target=resnet56-C": "unknown target 'resnet56-C'; did you mean 'resnet56-B'?",
    "run digits classifier.arch=ResNet50v": "unknown architecture 'ResNet50v'; did you mean 'resnet50'?",
    "run digits pipelines=[prune_then_transfr]": "'prune_then_transfr'; did you mean 'prune_then_transfer'?",
    "run digits 'pipelines={mine: [clasify, detect]}'": "'clasify' is not a step; did you mean 'classify'?",
    "run digits detector=null": "override 'detector=null': pipelines: unknown pipeline 'prune_then_transfer'",
    "run digits 'grid={prune.ratoi: [0.5]}'": "prune.ratoi: unknown key; did you mean 'ratio'?",
    "run digits 'variants={a: {prune: {method: thinnet}}}'": "unknown pruning method 'thinnet'; did you mean 'thinet'?",
    "run digits 'detector.dataset={digits: null, yolo: {yaml: no.yaml}}'": "no.yaml: No such file or directory",
    "run digits machine.device=gpu --dry-run": "'gpu' is no device; take auto, cpu, cuda, or one GPU, such as cuda:1",
    "run digits name=my/study": "name: 'my/study' does not fit; expected: text of letters, digits,",
    "run digits --watch": "runs/digits: no study of this name has begun there",
    "train-cls digits": "digits: this is a study's config, which `prune-transfer run` takes",
    "train-cls digits_resnet10 regime=scratch_e": "starts from a pruned network; give --pruned RUN",
    "train-cls digits_resnet10 --pruned runs/none": "regime 'base' starts from nothing; leave out --pruned",
    "train-cls digits_resnet10 --keys classifir": "there is no key 'classifir'; did you mean 'classifier'?",
    "train-cls cifar10": "put one of them there, or set download: true",
    "train-det digits_fpn": "one of the arguments --backbone --eval-only is required",
    "train-det digits_fpn --backbone runs/none": "runs/none: not a run directory",
    "train-det digits --backbone runs/none": "digits: this is a study's config, which `prune-transfer run` takes",
    "prune": "--out DIR is needed, the folder to write into",
    "prune --arch resnet50 --method l1_filter --ratio 50 --out x": "50.0 does not fit; expected: fraction",
    "prune --arch resnet50 --method l1_filter --out x": "needs --ratio, the fraction to remove, or --layer",
    "prune --target resnet56 --out x": "unknown target 'resnet56'; did you mean 'resnet56-B'?",
    "prune --arch resnet20 --method thinet --ratio 0.3 --out x": "which needs --data, a data set or a folder",
    "prune --arch resnet20 --method l1_filter --ratio 0.3 --weights no.pth --out x": "there is no such file of weights",
    "prune --arch resnet20 --method l1_filter --ratio 0.3 --device gpu --out x": "error: device: 'gpu' is no device; ",
    "prune --config digits --out x": "digits: this is a study's config, which `prune-transfer run` takes",
    "sensitivity folder": f"are required: --out; `prune-transfer sensitivity {HELP}",
    "sensitivity folder --out x": "folder: not a run directory",
    "sensitivity folder --ratios 50 --out x": "--ratios 50: a ratio is the fraction removed, 0 <= ratio < 1",
    "sensitivity folder --method thinnet --out x": "unknown pruning method 'thinnet'",
    "export folder": f"are required: --format; `prune-transfer export {HELP}",
    "export folder --format onxx": "choose from torchscript, onnx",
    "predict no.onnx photo.txt": "no.onnx: there is no such file; name an exported detector, or a run directory",
    "predict folder": "are required: IMAGES",
    "report": "the study's directory is missing, such as runs/digits",
    "report folder": "folder: not the directory of a study",
    "report folder --analysis kept": "unknown analysis 'kept'; did you mean 'kept_channels'?",
    "check-data": "name one thing to look at: a config, or files by --coco, or a folder by --voc",
    "check-data mnist": "it has no key detector.dataset, and so no detection data to check",
    "check-data --voc folder": "name the image sets too, such as `--voc folder train test`",
    "check-data --coco a.json folder": "a.json: cannot be read: No such file or directory",
    "runs lst runs": "invalid choice: 'lst' (choose from 'list', 'verify', 'remove')",
    "runs list nowhere": "nowhere: there is no such folder of runs",
}
FILES = {"empty": "", "list": "- a\n", "broken": "a: [1\n", "mine": "_base_: digit\nname: mine\n"}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_answered_by_its_cure(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.txt").touch()
    for name, text in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    try:
        code = prune_transfer.main(*(shlex.split(words) or [""]))
    except SystemExit as ended:  # of argparse
        code = ended.code
    said = capsys.readouterr()
    assert code == 2
    assert MISTAKES[words] in said.err, said.err
    assert said.err.startswith("error: ") and said.err.count("\n") <= 2
    assert not [words for words in ("Traceback", "Input should", "validation error", "pydantic") if words in said.err]
    assert not (tmp_path / "runs").exists()
