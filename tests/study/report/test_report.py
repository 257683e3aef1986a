"""The written report: files, columns, escaping, missing files, links."""

import base64
import csv
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.fabricated_study import fabricate, with_grid

from study.report.analyses import kept_channels
from study.report.curves import learning_curves
from study.report.differences import Differences
from study.report.figures import against_field
from study.report.gallery import galleries
from study.report.material import Material
from study.report.plots import MAX_CURVE_POINTS, thin
from study.report.routes import group_routes
from study.report.rows import Comparison
from study.report.tables import comparison_csv, main_table
from study.report.topic import DETECTION
from study.report.trends import trends
from study.report.write import escape, write_report

COLUMNS = (
    "pipeline,seed,AP,AP50,AP75,APs,APm,APl,backbone_params,backbone_macs,detector_params,detector_macs,"
    "latency_ms,train_macs,seconds,precision,removed_of_asked_percent,activation_bytes,latency_first_quartile_ms,"
    "latency_third_quartile_ms,latency_rounds"
)
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&`|"


class Page(HTMLParser):
    """The elements of a page, its visible text, and the JSON of its figures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.figures: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag + str(dict(attrs).get("type", ""))

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "scripttext/plain" and self.elements[-1][1]["id"].startswith("figure-"):
            self.figures.append(gzip.decompress(base64.b64decode(data)).decode())
        elif not self._inside.startswith(("script", "style")):
            self.text += data

    def tags(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture
def small_plotly(monkeypatch):
    """The library's five megabytes replaced by a word: most tests look at the rest of the page."""
    monkeypatch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")


def report_of(content: dict, runs: Path) -> Page:
    """The page of a comparison that is given as the content of comparison.json."""
    return Page(write_report(Comparison.from_json(content), runs, runs / content["study"]))


def test_the_page_is_whole_and_asks_nothing_of_the_network(tmp_path):
    path = write_report(Comparison.from_json(fabricate(tmp_path)), tmp_path, tmp_path / "digits")
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "claims.csv",
        "comparison.csv",
        "comparison.json",
        "report.html",
        "report.md",
    ]
    page = Page(path)
    addresses = [value for _, a in page.elements for key, value in a.items() if key in ("src", "href")]
    assert addresses and not [a for a in addresses if re.match(r"(https?:)?//", a)]
    (policy,) = [m["content"] for m in page.tags("meta") if "content" in m and "default-src" in m["content"]]
    assert policy.startswith("default-src 'none'")
    assert len(page.tags("script")) == len(page.figures) + 2  # plotly.js once, and the code that draws
    assert len(page.figures) == 12
    assert len(page.tags("img")) == 4 * 7  # four scenes; the ground truth and six routes


def test_the_answer_is_in_every_form(tmp_path, small_plotly):
    page = report_of(fabricate(tmp_path), tmp_path)
    sentence = (
        "No route is shown to be best among the pruned routes; the highest mean is prune_then_transfer: 61.2 AP, +1.3 ["
    )
    assert sentence in page.text
    assert page.text.index(sentence) < page.text.index("Few seeds.") < page.text.index("The comparison")
    assert escape(sentence) in (tmp_path / "digits" / "report.md").read_text()


def test_the_command_is_said_with_its_overrides_and_the_time_of_all_stages(tmp_path, small_plotly):
    page = report_of(
        {**fabricate(tmp_path), "config_file": "digits", "overrides": ["prune.ratio=0.7", "seeds=[0, 1]"]}, tmp_path
    )
    assert "prune-transfer run digits prune.ratio=0.7 'seeds=[0, 1]'" in page.text
    assert "stages, one after the other" in page.text


def test_links_lead_to_the_run_directories(tmp_path, small_plotly):
    page = report_of(fabricate(tmp_path), tmp_path)
    within, links = [], []
    for a in page.tags("a"):
        (within if a["href"].startswith("#") else links).append(a["href"])
    assert {link[1:] for link in within} <= {s["id"] for s in page.tags("section") if "id" in s}
    assert "../train_detector-aaaaaaaaaaaa/seed1" in links
    assert all((tmp_path / "digits" / link).is_dir() for link in links)


def test_csv_columns_and_values(tmp_path):
    content = fabricate(tmp_path, files=False)
    content["rows"][1]["AP"] = None
    lines = comparison_csv(Comparison.from_json(content)).splitlines()
    assert lines[0] == COLUMNS
    assert lines[1].startswith("unpruned,0,62.4,")
    assert lines[2].startswith("unpruned,1,,")
    assert len(lines) == 1 + 6 * 2


def test_csv_has_the_grid_between_pipeline_and_seed(tmp_path):
    content = with_grid(fabricate(tmp_path, files=False))
    rows = list(csv.DictReader(comparison_csv(Comparison.from_json(content)).splitlines()))
    assert list(rows[0])[:4] == ["pipeline", "prune.ratio", "seed", "AP"]
    assert len(rows) == 6 * 2 * 2
    assert {row["prune.ratio"] for row in rows} == {"0.5", "0.7"}


def test_nan_is_written_as_null(tmp_path, small_plotly):
    content = fabricate(tmp_path, files=False)
    content["rows"][0]["APl"] = float("nan")
    report_of(content, tmp_path)
    written = json.loads((tmp_path / "digits" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert written["rows"][0]["APl"] is None
    assert written["rows"][0]["AP"] == 62.4


def test_html_in_names_is_harmless(tmp_path, small_plotly):
    harmless = report_of(fabricate(tmp_path), tmp_path)
    content = fabricate(tmp_path)
    content["title"] = content["evaluation"]["dataset"] = content["config_yaml"] = NASTY
    for row in content["rows"]:
        row["per_class"] = {NASTY: 50.0}
        if row["pipeline"] == "scratch_e":
            row["pipeline"] = NASTY
            row["chain"][-2]["step"] = NASTY
    content["missing"] = [{"pipeline": NASTY, "seed": 2, "point": {}, "why": NASTY}]
    page = report_of(content, tmp_path)
    assert len(page.tags("script")) == len(harmless.tags("script"))
    assert not [a for a in page.tags("img") if "onerror" in a]
    assert page.text.count(NASTY) > 5
    for figure in page.figures:
        # Plotly reads HTML in labels: the names are escaped inside the packed JSON
        assert "<img" not in str(json.loads(figure))
    markdown = (tmp_path / "digits" / "report.md").read_text()
    assert "<img" not in markdown.split("```")[0]


def test_missing_files_are_said_and_do_not_stop_the_report(tmp_path, small_plotly):
    page = report_of(fabricate(tmp_path, files=False), tmp_path)
    assert "train_detector-aaaaaaaaaaaa/seed0/metrics.jsonl: No such file or directory" in page.text
    assert "prune-bbbbbbbbbbbb/seed0/plan.json: No such file or directory" in page.text
    assert "No evaluation stage has drawn its detections." in page.text
    assert len(page.figures) == 7  # the ones that need no run directory


def test_damaged_files_are_said(tmp_path):
    content = fabricate(tmp_path)
    material = Material.of(Comparison.from_json(content), tmp_path)
    run = "train_detector-aaaaaaaaaaaa/seed0"
    with (tmp_path / run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 410, "lo')
    (tmp_path / "prune-bbbbbbbbbbbb/seed0/plan.json").write_text("{}")
    picture = next(tmp_path.glob("evaluate-*/seed0/detections/detections_2.png"))
    picture.write_bytes(b"not a picture")
    curves = learning_curves(material)
    assert f"{run}/metrics.jsonl: 1 of 40 lines are unreadable" in curves[0].gaps
    exhibit = kept_channels.analyse(material)
    assert any("plan.json: not a pruning plan" in gap for gap in exhibit.gaps)
    (gallery,) = galleries(material)
    assert gallery.rows[2].count(None) == 1
    assert gallery.gaps == (f"{picture.relative_to(tmp_path)}: not a PNG file",)


def test_an_empty_comparison_still_has_a_report(tmp_path, small_plotly):
    content = fabricate(tmp_path, files=False)
    content.update(rows=[], stages={}, evaluation={})
    content["missing"] = [{"pipeline": "unpruned", "seed": 0, "point": {}, "why": "disk full"}]
    page = report_of(content, tmp_path)
    assert "No route has a result yet" in page.text and "disk full" in page.text


def test_one_seed_has_no_interval_anywhere(tmp_path, small_plotly):
    page = report_of(fabricate(tmp_path, seeds=(0,)), tmp_path)
    assert "one seed: no interval" in page.text and "Some routes rest on one seed" in page.text
    assert "within noise," not in page.text.split("The comparison")[0]


def test_the_grid_is_in_table_and_figures(tmp_path, small_plotly):
    content = with_grid(fabricate(tmp_path), loss=4.0)
    material = Material.of(Comparison.from_json(content), tmp_path)
    table = main_table(material.routes, ["prune.ratio"], DETECTION, Differences(material.routes, "AP"))
    assert [line.point for line in table.lines[5:7]] == [("0.5",), ("0.7",)]
    differences = {(x.route.name, x.point): x.cells[3].text for x in table.lines}
    assert differences["prune_then_transfer", ("0.7",)] == "−5.8"  # 57.2 - 63.0, both at 0.7
    figure = against_field(material, "prune.ratio")
    assert list(figure.data[0].x) == [0.5, 0.7]
    assert "AP against prune.ratio" in report_of(content, tmp_path).text


def test_a_grid_field_of_words_has_no_figure(tmp_path):
    content = with_grid(fabricate(tmp_path, files=False))
    for row in content["rows"]:
        row["point"] = {"method": "random"}
    assert trends(Material.of(Comparison.from_json(content), tmp_path), ["method"]) == []


def test_columns_of_absent_references_are_left_out(tmp_path, small_plotly):
    content = fabricate(tmp_path)
    content["rows"] = [r for r in content["rows"] if r["pipeline"] in ("scratch_e", "scratch_b")]
    for row in content["rows"]:
        row["pipeline"] = {"scratch_e": "mine", "scratch_b": "yours"}[row["pipeline"]]
    routes = group_routes(Comparison.from_json(content).rows)
    table = main_table(routes, [], DETECTION, Differences(routes, "AP"))
    assert not [column for column in table.columns if "Δ" in column]
    assert [line.route.name for line in table.lines] == ["mine", "yours"]
    page = report_of(content, tmp_path)
    assert "the highest mean is yours: 59.9 AP" in page.text
    assert "Against the literature" not in page.text


def test_routes_that_share_a_plan_share_a_series_of_bars(tmp_path):
    exhibit = kept_channels.analyse(Material.of(Comparison.from_json(fabricate(tmp_path)), tmp_path))
    classifier, detector = exhibit.figure.data
    assert classifier.name == "prune_then_transfer + scratch_e + scratch_b + detect_from_scratch"
    assert list(classifier.y) == [50.0] * 8
    assert list(classifier.x) == list(detector.x)  # the detector's names lose the backbone's prefix


def test_thinning_keeps_the_mean_and_the_ends_of_a_ragged_curve():
    x, y = thin(range(401), [float(v) for v in range(401)])
    assert len(x) <= MAX_CURVE_POINTS
    assert x == y
    assert (x[0], x[-1]) == (1.0, 399.5)  # windows of 3: (0 + 1 + 2) / 3, and the last of 2: (399 + 400) / 2
    assert thin([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0])


def test_markdown_has_a_blank_line_between_blocks_and_whole_tables(tmp_path, small_plotly):
    content = fabricate(tmp_path)
    content["missing"] = [{"pipeline": "scratch_e", "seed": 2, "point": {}, "why": "disk | full"}]
    report_of(content, tmp_path)
    text = (tmp_path / "digits" / "report.md").read_text()
    assert "\n\n\n" not in text and text.endswith("```\n")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 9  # the main one, the literature, the classes, five analyses, what is missing
    for head, rule, *rows in tables:
        assert rule == "|" + " --- |" * head.count(" |") and rows
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in (head, *rows)} == {rule.count("|")}
    assert "| scratch\\_e | 2 |  | disk \\| full |" in text


def test_markdown_shows_names_as_they_are():
    assert escape("a|b <i>*x*\n`y`") == r"a\|b &lt;i&gt;\*x\* \`y\`"
