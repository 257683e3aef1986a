"""What a study leaves on the disk, by hand."""

from types import SimpleNamespace

from study.plan import disk
from study.plan.disk import Disk, disk_of


def test_the_sentence():
    assert str(Disk(12_800_000_000, 0, 0)) == (
        "about 12.8 GB on the disk in the end; `prune-transfer runs remove` frees what no study uses any more"
    )
    assert str(Disk(12_800_000_000, 300_000_000, 1_000_000_000)) == (
        "about 12.8 GB on the disk in the end, 300 MB of it there already; up to 1 GB more for checkpoints while it"
        " runs; `prune-transfer runs remove` frees what no study uses any more"
    )


def stage(tmp_path, kind, name, *, done=False, size=0, **settings):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_bytes(bytes(size))
    found = SimpleNamespace(id=name, kind=kind, settings=settings)
    found.run = lambda runs: SimpleNamespace(done=done, path=folder)
    found.read = lambda section: SimpleNamespace(**settings)
    found.with_ancestors = lambda: [found]
    return found


def test_weights_snapshots_detections_and_what_is_there(tmp_path, monkeypatch):
    image = SimpleNamespace(width=10, height=20)
    dataset = SimpleNamespace(split=SimpleNamespace(images=[image] * 3))
    monkeypatch.setattr(disk, "open_detection", lambda data, split, root: dataset)
    estimator = SimpleNamespace(
        runs=tmp_path,
        machine=SimpleNamespace(executor="local", n_jobs=1),
        network=lambda stage: None,
        estimate=lambda stage: SimpleNamespace(params=1000 if stage.kind == "train_classifier" else 3000),
    )
    stages = [
        stage(tmp_path, "train_classifier", "a", done=True, size=77),
        stage(tmp_path, "train_classifier", "b", snapshot_epochs=(1, 2), snapshot_at=None),
        stage(tmp_path, "train_detector", "c"),
        stage(tmp_path, "evaluate", "d", data={}, split="test", scenes=2),
    ]
    weights = 1000 * 4 * 3 + 3000 * 4
    found = 3 * 100 * 50 + 2 * 2 * 10 * 20 * 2
    assert disk_of(stages, estimator) == Disk(77 + weights + found, 77, 2 * 3 * 4 * 3000)
