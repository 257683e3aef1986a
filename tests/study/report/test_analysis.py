"""The analyses against numbers worked out by hand from small fabricated runs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from support.fabricated_classification import fabricate_classification
from support.fabricated_study import a_comparison, a_row, a_step, fabricate

from pruning.masks import Masks
from study.report.analyses import (
    ANALYSES,
    analyse_all,
    efficiency,
    kept_channels,
    kernels,
    ratios,
    recalibration,
    tickets,
    weights,
)
from study.report.analyses.alone import list_analyses, run_analysis
from study.report.analyses.weights import conv_weights
from study.report.artifacts import RunFiles
from study.report.figures import against_cost
from study.report.material import Material
from study.report.rows import Comparison


def rows_of(exhibit):
    """The table of an analysis as dictionaries."""
    return [dict(zip(exhibit.columns, row, strict=True)) for row in exhibit.rows]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two variants at two ratios with files: (comparison, folder of the runs)."""
    runs = tmp_path_factory.mktemp("runs")
    grid = {"prune.ratio": [0.5, 0.75]}
    content = fabricate_classification(runs, variants=("l1", "weights"), grid=grid, seeds=(0, 1))
    return Comparison.from_json(content), runs


def test_accuracy_is_set_against_params_and_macs_with_its_spread(study):
    comparison, runs = study
    first = rows_of(efficiency.against_params(Material.of(comparison, runs)))[0]
    assert (first["route"], first["params"], first["top-1 (%)"], first["n"]) == ("unpruned", 78_000, 90.1, 2)
    assert first["standard deviation"] == pytest.approx(0.2 / 2**0.5)  # 90.0 and 90.2
    assert rows_of(efficiency.against_macs(Material.of(comparison, runs)))[0]["MACs"] == 12_000_000


def test_detectors_are_not_set_against_params(tmp_path):
    comparison = Comparison.from_json(fabricate(tmp_path, files=False))
    assert efficiency.against_params(Material.of(comparison, tmp_path)) is None
    assert rows_of(efficiency.against_macs(Material.of(comparison, tmp_path)))[0]["backbone MACs"] == 592_445_440


def test_the_drop_below_the_unpruned_network_grows_with_the_ratio(study):
    found = {(r["route"], r["at"], r["prune.ratio"]): r for r in rows_of(ratios.analyse(Material.of(*study)))}
    # 0.5 below the dense network, and 6 points more for each unit of the ratio above one half
    half, more = (found["fine_tune", "variant = l1", ratio]["difference to unpruned"] for ratio in (0.5, 0.75))
    assert more - half == pytest.approx(-1.5)
    assert ("unpruned", "", 0.5) not in found


def test_shares_left_are_told_as_ratios_are(tmp_path):
    grid = {"prune.target_macs": [0.5, 0.25]}
    comparison = Comparison.from_json(fabricate_classification(tmp_path, variants=("l1",), grid=grid, files=False))
    exhibit = ratios.analyse(Material.of(comparison, tmp_path))
    assert "by prune.target_macs, the share of the multiply-adds left." in exhibit.caption
    assert {row["prune.target_macs"] for row in rows_of(exhibit)} == {0.5, 0.25}
    drawn = against_cost(Material.of(comparison, tmp_path), "macs").data
    assert [len(line.x) for line in drawn if line.mode == "lines+markers"] == [2] * 4  # each route along the targets


def test_one_ratio_shows_no_sensitivity(tmp_path):
    comparison = Comparison.from_json(fabricate_classification(tmp_path, grid={"prune.ratio": [0.5]}, files=False))
    assert ratios.analyse(Material.of(comparison, tmp_path)) is None


def test_tickets_are_paired_with_random_starts_at_each_rate(tmp_path):
    grid = {"classifier.train.lr": [0.1, 0.01]}
    comparison = Comparison.from_json(fabricate_classification(tmp_path, variants=("weights",), grid=grid, files=False))
    large, small = rows_of(tickets.analyse(Material.of(comparison, tmp_path)))
    assert (large["at"], small["at"]) == ("weights, lr = 0.1", "weights, lr = 0.01")
    # the ticket is 0.1 below at the large rate; at the small one 0.6 and 0.9 above fine_tune's level and its own
    assert large["difference"] == pytest.approx(-0.1)
    assert small["difference"] == pytest.approx(1.5)
    assert large["n"] == 3


def test_without_tickets_there_is_nothing_to_show(tmp_path):
    comparison = Comparison.from_json(fabricate_classification(tmp_path, files=False))
    others = tuple(row for row in comparison.rows if row.pipeline != "ticket")
    assert tickets.analyse(Material.of(replace(comparison, rows=others), tmp_path)) is None


def test_recalibration_is_measured_on_the_pruned_network(study):
    row = rows_of(recalibration.analyse(Material.of(*study)))[0]
    assert (row["right after pruning"], row["BatchNorm recalibrated"]) == (40.5, 61.0)  # 40, 41 and 60, 62
    assert row["difference"] == pytest.approx(20.5)
    assert row["after fine-tuning"] == pytest.approx(89.65, abs=0.1)


def test_routes_that_were_pruned_otherwise_have_bars_of_their_own():
    """In chains of a user's own a step may change how much is removed."""
    pruned = {"half": 40.0, "most": 10.0, "fine_tune": 40.0}
    rows = [
        a_row(
            name,
            seed,
            [
                a_step("prune", f"prune-{'most' if name == 'most' else 'half'}/seed{seed}"),
                a_step("train_classifier", name),
            ],
            top1=80.0,
            pruned_top1=value,
            recalibrated_top1=value + 20,
        )
        for name, value in pruned.items()
        for seed in (0, 1)
    ]
    comparison = replace(a_comparison(rows), task="classification")
    found = rows_of(recalibration.analyse(Material.of(comparison, Path())))
    assert [(r["at"], r["right after pruning"], r["after fine-tuning"]) for r in found] == [
        ("all: half + fine_tune", 40.0, 80.0),
        ("all: most", 10.0, None),
    ]


def test_kept_channels_by_stage_come_before_the_layers(study):
    found = [row for row in rows_of(kept_channels.analyse(Material.of(*study))) if "0.75" in row["routes"]]
    assert [row["part"] for row in found] == [
        *(f"stage {i} (maps of {area} pixels)" for i, area in ((1, 1024), (2, 256), (3, 64))),
        *("layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"),
    ]
    assert {row["kept (%)"] for row in found} == {25.0}
    assert found[0]["routes"] == "5 routes (variant = l1, prune.ratio = 0.75)"  # masks narrow no layer


def test_kernel_densities_by_position_and_stage(tmp_path):
    comparison = Comparison.from_json(fabricate_classification(tmp_path, variants=("weights",), seeds=(0,)))
    (path,) = tmp_path.glob("prune-*/seed0/masks.safetensors")
    masks = {name: torch.ones_like(mask) for name, mask in Masks.load(path).items()}
    for name, mask in masks.items():
        if name.startswith("layer3") and mask.shape[2:] == (3, 3):
            mask[:, :, 1, 1] = False  # the centres of the last stage are gone
    path.write_bytes(Masks(masks).to_bytes())
    found = rows_of(kernels.analyse(Material.of(comparison, tmp_path)))
    assert [row["stage"] for row in found] == [1, 2, 3]
    assert [row["row 2, column 2 (%)"] for row in found] == [100, 100, 0]
    assert found[2]["row 1, column 1 (%)"] == 100
    assert found[2]["3x3, mean (%)"] == pytest.approx(100 * 8 / 9)


def test_weights_behind_a_mask_are_left_out(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    state = {"conv.weight": torch.tensor([1.0, 2.0, 0.0, 0.0]).view(2, 2, 1, 1), "linear.weight": torch.ones(3, 3)}
    save_file(state, run / "weights.safetensors")
    assert conv_weights(RunFiles(tmp_path), "run").tolist() == [1, 2, 0, 0]
    mask = torch.tensor([True, True, True, False]).view(2, 2, 1, 1)
    (run / "masks.safetensors").write_bytes(Masks({"conv.weight": mask}).to_bytes())
    assert conv_weights(RunFiles(tmp_path), "run").tolist() == [1, 2, 0]  # a zero that no mask removed is a weight


def test_histograms_have_the_routes_side_by_side_and_equal_areas(study):
    exhibit = weights.analyse(Material.of(*study))
    names = [row["route"] for row in rows_of(exhibit) if row["at"] == "variant = l1, prune.ratio = 0.5"]
    assert names == ["unpruned", "pruned", "fine_tune", "scratch_e", "scratch_b", "ticket"]
    line = exhibit.figure.data[0]
    area = sum(line.y) * (line.x[1] - line.x[0])
    assert 0.98 < area <= 1.001  # the axis leaves out at most one weight in 200 of the widest route


def test_damaged_files_are_gaps_and_no_errors(tmp_path):
    comparison = Comparison.from_json(fabricate_classification(tmp_path, variants=("weights",), seeds=(0,)))
    for name in ("masks.safetensors", "weights.safetensors"):
        for path in tmp_path.glob(f"*/seed0/{name}"):
            path.write_bytes(b"broken")
    gaps = [gap for exhibit in analyse_all(Material.of(comparison, tmp_path)) for gap in exhibit.gaps]
    assert any("masks.safetensors: not a safetensors file" in gap for gap in gaps)
    assert any("weights.safetensors: not a safetensors file" in gap for gap in gaps)


def test_one_analysis_alone_prints_and_writes_its_table(study, tmp_path):
    comparison, runs = study
    out = runs / "alone"
    out.mkdir()
    (out / "comparison.json").write_text(json.dumps(comparison.to_json()))
    console = Console(record=True, width=200)
    table, figure = run_analysis(out, "quality_against_params", console)
    assert "unpruned" in console.export_text()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert (rows[0]["params"], rows[0]["top-1 (%)"]) == ("78000", "90.1")
    assert figure.name == "analysis-quality_against_params.html" and "<div" in figure.read_text()


def test_alone_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="unknown analysis 'tables'; choose from quality_against_macs, "):
        run_analysis(tmp_path, "tables", Console())
    with pytest.raises(ValueError, match=r"it has no comparison\.json"):
        run_analysis(tmp_path, "tickets", Console())
    (tmp_path / "comparison.json").write_text(json.dumps(fabricate(tmp_path, files=False)))
    with pytest.raises(ValueError, match="the study has nothing for the analysis 'tickets'"):
        run_analysis(tmp_path, "tickets", Console())


def test_every_analysis_is_listed_with_a_sentence():
    lines = list_analyses().splitlines()
    assert [line.partition(":")[0] for line in lines] == list(ANALYSES)
    assert all(len(line.partition(":")[2]) > 20 for line in lines)
