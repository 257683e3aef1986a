"""The lines by which a user trains, prunes and rebuilds a classifier, as the package's docstring shows them."""

import torch
from support.docstring_code import shown_code

import classify

SMALLER = {
    '"cifar10", root=Path("data"), download=True': '"digits", image_size=32, n_train=48, n_val=20, n_test=30',
    "epochs=160, batch_size=64": "epochs=1, batch_size=16",
}


def test_shown_lines_train_prune_and_rebuild(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(shown_code(classify, SMALLER), "docstring of classify", "exec"), names)
    assert 0 <= float(capsys.readouterr().out) <= 100
    assert (tmp_path / "dense.pt").is_file() and (tmp_path / "small.pt").is_file()
    scratch, pruned = (
        {k: t.shape for k, t in m.state_dict().items()} for m in (names["scratch"], names["pruned"].model)
    )
    assert scratch == pruned


def test_all_names_are_there():
    assert all(hasattr(classify, name) for name in classify.__all__)
