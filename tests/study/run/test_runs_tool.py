"""`prune-transfer runs` and --watch: states, checks and removals."""

import json
import threading
import time
from io import StringIO

import pytest
from filelock import FileLock
from rich.console import Console
from support.tiny_classification import tiny
from support.trivial_stages import Doing, run, stage

from study.plan.dry_run import _done
from study.plan.pipelines import all_stages
from study.run.housekeeping import remove_runs, unused_runs, verify_runs
from study.run.study import STUDY_FILE, _seen_at_work
from study.run.watch import is_locked, list_runs, state_of, study_table, watch
from study.stages.progress import size_in_words, time_in_words
from study.stages.stage import KINDS
from study.stages.store import RunDir
from training.files import PARTIAL, write_json


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Stages 0 -> 1 are done, 2 failed."""

    def act(context):
        if context.stage.settings["number"] == 2:
            raise ValueError("<b>no [bold]luck[/bold]</b>")
        context.run.plan.write_text("plan")
        return {"metrics": {"top1": 50.0}, "train_macs": 0}

    monkeypatch.setitem(KINDS, "prune", Doing("prune", act))
    first = stage(0)
    found = [first, stage(1, first), stage(2)]
    run(found, tmp_path)
    return tmp_path, found


def test_states_and_sizes(runs):
    folder, (first, second, third) = runs
    found = {info.id: info for info in list_runs(folder)}
    assert {key: info.state for key, info in found.items()} == {
        first.id: "done",
        second.id: "done",
        third.id: "failed",
    }
    assert found[first.id].size == sum(f.stat().st_size for f in first.run(folder).path.iterdir())
    with FileLock(third.run(folder).lock):
        assert state_of(third.run(folder)) == "running"
    result = second.run(folder).result
    result.write_text(result.read_text().replace("50.0", "60.0"))
    assert state_of(second.run(folder)) == "damaged"
    with pytest.raises(ValueError, match="there is no such folder"):
        list_runs(folder / "elsewhere")


def test_a_whole_folder_has_no_faults(runs):
    folder, _ = runs
    assert verify_runs(folder) == (2, [])


def test_every_kind_of_fault_is_named(runs):
    folder, (first, _, third) = runs
    first.run(folder).plan.write_text("another plan")
    (first.run(folder).path / "extra.txt").write_text("")
    (third.run(folder).path / f".plan.json.x{PARTIAL}").write_text("")
    _, faults = verify_runs(folder)
    assert len(faults) == 3
    assert "plan.json: this is not the file that the run wrote" in faults[0]
    assert "extra.txt: the run did not write this file" in faults[1]
    assert "left by a process that was killed" in faults[2]


def test_a_run_under_another_name_is_found(runs):
    folder, (first, *_) = runs
    moved = folder / "prune-000000000000"
    first.run(folder).path.parent.rename(moved)
    faults = verify_runs(folder)[1]
    assert any(f"its config.yaml belongs to {first.id}" in fault for fault in faults)
    assert any("not a run directory" in fault for fault in faults)  # the child's parent is missing


def test_only_what_no_study_uses_is_removed(runs):
    folder, found = runs
    config, routes = tiny()
    written = {"config": config.model_dump(mode="json", exclude_unset=True), "config_file": "tiny.yaml"}
    write_json(folder / "tiny" / STUDY_FILE, written)
    used = all_stages(routes)[0]
    used.run(folder).path.mkdir(parents=True)
    unused = unused_runs(folder)
    assert {info.id for info in unused} == {s.id for s in found}
    with FileLock(found[2].run(folder).lock):
        removed = remove_runs(unused)
    assert {info.id for info in removed} == {found[0].id, found[1].id}
    assert used.run(folder).path.is_dir() and found[2].run(folder).path.is_dir()
    assert not found[0].run(folder).path.parent.exists()
    (folder / "tiny" / STUDY_FILE).write_text(json.dumps({"config": {}, "config_file": "x"}))
    with pytest.raises(ValueError, match="so nothing is removed"):
        unused_runs(folder)


def test_the_table_of_a_study_shows_states_and_harmless_text(runs, capsys):
    folder, found = runs
    table, active = study_table(found, {s.id: "[red]<i>x</i>" for s in found}, folder)
    Console(width=200).print(table)
    shown = capsys.readouterr().out
    assert "2 of 3 stages done" in shown and "top1 50" in shown
    assert "[red]<i>x</i>" in shown and "<b>no [bold]luck[/bold]</b>" in shown
    assert not active
    assert "2 of 3 stages done, 1 failed" in shown
    with FileLock(found[2].run(folder).lock):
        write_json(found[2].run(folder).status, {"step": 20, "total": 60, "rate": 0.1, "loss": 1.5})
        table, active = study_table(found, {s.id: "few" for s in found}, folder, rows=1)
    Console(width=200).print(table)
    shown = capsys.readouterr().out
    assert active and "1 running" in shown
    assert [word in shown for word in ("20/60", "7 min left", "loss 1.5")] == [True] * 3
    assert shown.count("few") == 1  # what is done has no room


def test_watching_ends_when_the_study_ends(runs, monkeypatch):
    """A stage fails, nothing is at work for a moment, a stage begins, the study ends."""
    folder, found = runs
    monkeypatch.setattr("study.run.watch._WATCH_SECONDS", 0.01)
    study, shown = RunDir(folder / "mine"), StringIO()
    study.path.mkdir()
    console = Console(file=shown, force_terminal=True, width=120, height=30)
    thread = threading.Thread(target=watch, args=(lambda: (found, {s.id: s.kind for s in found}), study, console))
    with FileLock(study.at_work):
        thread.start()
        wait_until(lambda: "2 of 3 stages done, 1 failed" in shown.getvalue())
        with FileLock(found[2].run(folder).lock):
            write_json(found[2].run(folder).status, {"step": 20, "total": 60, "rate": 0.1, "top1": 12.5})
            wait_until(lambda: "7 min left" in shown.getvalue())
    thread.join(300)
    assert not thread.is_alive()
    assert "20/60" in shown.getvalue() and "top1 12.5" in shown.getvalue()
    assert shown.getvalue().rstrip().endswith("No process is at work on this study.")


def test_a_study_is_seen_at_work_though_someone_looked_as_it_began(tmp_path):
    study = RunDir(tmp_path / "mine")
    study.path.mkdir()
    looks = FileLock(study.at_work, thread_local=False)
    looks.acquire()
    timer = threading.Timer(0.1, looks.release)
    timer.start()
    with _seen_at_work(study.path):
        timer.join()
        assert is_locked(study.at_work)
    assert not is_locked(study.at_work)


def wait_until(condition):
    for _ in range(30_000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited for five minutes")


def test_watching_what_no_one_runs_and_what_no_one_sees(runs):
    folder, found = runs
    for terminal, ending in ((True, "on this study."), (False, "┘")):
        shown = StringIO()
        console = Console(file=shown, force_terminal=terminal, width=120)
        watch(lambda: (found, {s.id: s.kind for s in found}), RunDir(folder / "mine"), console)
        assert shown.getvalue().rstrip().endswith(ending)


def test_words():
    assert [size_in_words(n) for n in (12, 3400, 5.6e7, 2e9)] == ["12 B", "3.4 kB", "56 MB", "2 GB"]
    assert [time_in_words(s) for s in (5, 125, 7200, 200000)] == ["5 s", "2 min", "2 h", "2 days"]


def test_a_fault_counts_once_though_children_and_checks_meet_it_too(runs):
    folder, (first, *_) = runs
    config = first.run(folder).config
    config.write_text(config.read_text().replace("number: 0", "number: 7"))
    (fault,) = verify_runs(folder)[1]
    assert str(first.run(folder).path) in fault


def test_the_dry_run_says_which_files_of_a_finished_run_are_lost(runs):
    folder, (first, *_) = runs
    assert _done(first.run(folder)) == "done"
    first.run(folder).plan.unlink()
    assert _done(first.run(folder)) == "done, plan.json lost"
    first.run(folder).result.write_text("{}")
    assert _done(first.run(folder)) == "damaged"
