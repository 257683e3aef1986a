"""One precision for a study, whoever runs its stages and whenever; and what the report says of it."""

import pytest
import torch
from support.fabricated_study import fabricate
from support.tiny_classification import tiny

from study.config.sections import Machine
from study.plan.pipelines import all_stages
from study.report.content import content_of
from study.report.provenance import warnings
from study.report.rows import Comparison
from study.report.write import render_html, render_markdown
from study.run.precision import settle_here
from study.run.study import run_study
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.compiled import check_compiler
from training.device import Precision
from training.files import read_json
from training.strict_yaml import ConfigError

ONE_STAGE = [Stage("train_classifier", {"number": 0}, (), 0)]


def run(runs, **machine):
    changes = {f"machine.{key}": value for key, value in machine.items()}
    config, routes = tiny({"pipelines": ["unpruned", "fine_tune"], **changes})
    _, outcome = run_study(config, runs / "tiny.yaml", routes, runs)
    assert outcome.complete, outcome
    return [s.run(runs).read_result() for s in all_stages(routes)]


def chosen(results):
    return [r["precision"] for r in results if r["kind"] == "train_classifier"]


@pytest.mark.cpu_only
def test_a_study_measures_once_and_keeps_to_the_answer(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: asked.append(1) or 1.5)
    expected = {"name": "bfloat16", "asked": "auto", "by": "measuring", "bfloat16_speedup": 1.5}
    results = run(tmp_path, precision="auto")
    assert chosen(results) == [expected] * 2 and len(asked) == 1
    assert read_json(RunDir(tmp_path / "tiny").precision) == {"device": "cpu", **expected}
    # on a processor that answers otherwise it goes on as it began
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: pytest.fail("measured again"))
    _, routes = tiny({"pipelines": ["unpruned", "fine_tune"]})
    all_stages(routes)[-1].run(tmp_path).result.unlink()
    assert chosen(run(tmp_path, precision="auto")) == [expected] * 2
    report = (tmp_path / "tiny" / "report.md").read_text()
    assert "trained in bfloat16" in report and "bfloat16 measured 1.50 times as fast as float32" in report
    assert "mix precisions" not in report


@pytest.mark.cpu_only
def test_stages_of_an_earlier_run_in_another_precision_are_warned_of(tmp_path, auto_is):
    run(tmp_path, precision="auto")
    run(tmp_path, precision="float32")
    _, routes = tiny({"pipelines": ["unpruned", "fine_tune"]})
    said = "machine.precision asks for float32, and 2 of 2 trainings were made in bfloat16"
    assert (said in (tmp_path / "tiny" / "report.md").read_text()) == (auto_is == "bfloat16")
    all_stages(routes)[-1].run(tmp_path).result.unlink()
    run(tmp_path, precision="float32")
    report = (tmp_path / "tiny" / "report.md").read_text()
    assert ("The rows mix precisions" in report) == (auto_is == "bfloat16")


@pytest.mark.slow
def test_worker_processes_compute_in_what_the_study_settled(tmp_path, monkeypatch):
    # they are new processes, and would measure for themselves
    for name, speedup in (("bfloat16", 7.25), ("float32", 0.125)):
        monkeypatch.setattr("training.device.bfloat16_speedup", lambda s=speedup: s)
        found = chosen(run(tmp_path / name, precision="auto", jobs=2))
        assert found == [Precision(name, "auto", "measuring", speedup).as_result()] * 2


@pytest.mark.parametrize(
    ("machine", "gpu_here", "expected"),
    [
        ({}, False, Precision("bfloat16", "auto", "measuring", 2.0)),
        ({"precision": "float32"}, True, Precision("float32", "float32")),
        ({}, True, Precision("float16", "auto", "the device's kind")),
        ({"device": "cpu"}, True, Precision("bfloat16", "auto", "measuring", 2.0)),
        ({"executor": "slurm"}, True, Precision("bfloat16", "auto", "measuring", 2.0)),
        ({"executor": "slurm", "slurm": {"gpus": 1}}, True, Precision("float16", "auto", "the device's kind")),
        ({"executor": "slurm", "slurm": {"gpus": 1}}, False, None),  # each job asks its GPU
        ({"executor": "slurm", "slurm": {"gpus": 1}, "precision": "float16"}, False, Precision("float16", "float16")),
    ],
)
def test_the_answer_is_that_of_the_device_that_computes(tmp_path, monkeypatch, machine, gpu_here, expected):
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: 2.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_here)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert settle_here(ONE_STAGE, tmp_path, Machine(**machine)) == expected


def test_nothing_is_measured_for_stages_that_train_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("training.device.bfloat16_speedup", lambda: pytest.fail("measured"))
    assert settle_here([Stage("prune", {}, (), 0)], tmp_path, Machine()) is None


@pytest.mark.cpu_only
def test_a_compiled_training_says_so_and_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setattr("training.compiled.BACKEND", "aot_eager")
    results = run(tmp_path, precision="float32", compile=True)
    assert chosen(results) == [{**Precision("float32", "float32").as_result(), "compiled": True}] * 2
    report = (tmp_path / "tiny" / "report.md").read_text()
    assert "trained in float32, compiled" in report and "mix precisions" not in report
    _, routes = tiny({"pipelines": ["unpruned", "fine_tune"]})
    all_stages(routes)[-1].run(tmp_path).result.unlink()
    assert [p.get("compiled") for p in chosen(run(tmp_path, precision="float32"))] == [True, None]
    assert "The rows mix precisions" in (tmp_path / "tiny" / "report.md").read_text()


@pytest.mark.parametrize("overrides", [{}, {"prune": {"method": "group_fisher", "ratio": 0.5}}])
def test_what_cannot_be_compiled_is_refused_before_any_work(tmp_path, monkeypatch, overrides):
    if overrides:
        monkeypatch.setattr("training.compiled.BACKEND", "aot_eager")
        said = "group_fisher listens to each layer while the network computes"
    else:
        monkeypatch.setattr("training.compiled.BACKEND", lambda graph, inputs: 1 / 0)
        said = "nothing can be compiled for 'cpu' here: "
    check_compiler.cache_clear()
    config, routes = tiny({"pipelines": ["fine_tune"], "machine.compile": True, **overrides})
    with pytest.raises(ConfigError, match=said) as error:
        run_study(config, tmp_path / "tiny.yaml", routes, tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*-*"))
    check_compiler.cache_clear()


def test_float16_on_the_cpu_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"machine\.precision='float16' is for GPUs; on 'cpu' take auto"):
        run(tmp_path, precision="float16", device="cpu")
    assert not list(tmp_path.glob("train_classifier-*"))


def test_rows_that_mix_precisions_are_named(tmp_path):
    content = fabricate(tmp_path)
    for row in content["rows"]:
        row["precision"] = "float32"
    assert warnings(Comparison.from_json(content)) == []
    for row in content["rows"]:
        row["precision"] = "bfloat16" if row["pipeline"] == "scratch_e" else "float32"
    (message,) = warnings(Comparison.from_json(content))
    assert message.startswith("The rows mix precisions") and message.endswith("bfloat16: scratch_e.")
    content["rows"] = content["rows"][:1]
    content["rows"][0]["precision"] = "float32 and bfloat16"  # of its classifier and of its detector
    assert "float32 and bfloat16: unpruned" in warnings(Comparison.from_json(content))[0]


def test_a_report_of_results_that_recorded_none_says_so(tmp_path):
    content = fabricate(tmp_path)
    said = content_of(Comparison.from_json(content), tmp_path, tmp_path)
    assert "* precision: not recorded" in render_markdown(said)
    for stage in content["stages"].values():
        stage["result"]["precision"] = Precision("float32", "float32").as_result()
    said = content_of(Comparison.from_json(content), tmp_path, tmp_path)
    text = render_markdown(said)
    assert "trained in float32" in text and "* precision: float32 (as asked)" in text
    assert "trained in float32" in render_html(said)


def test_a_result_names_the_device_that_computed_and_its_vectors(tmp_path, monkeypatch):
    from study.stages.provenance import environment

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    device = environment("cpu")["device"]
    assert device["type"] == "cpu" and device["vectors"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    for capability, expected in (((9, 0), "convolutions"), ((7, 5), "none")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert environment("cuda")["device"]["tf32"] == expected
