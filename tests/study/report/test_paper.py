"""What a paper takes from a report: the same numbers, LaTeX that holds whatever a route is called, figures in print."""

import csv
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from shutil import which

import pytest
from support.fabricated_study import fabricate, with_grid

from classify.regimes import RETRAINING
from pruning.errors import Refusal
from pruning.methods import METHODS
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES
from study.report import paper
from study.report.claims.citations import (
    BY_METHOD,
    BY_REGIME,
    BY_TOPIC,
    DEPENDENCIES,
    HOLM,
    LIU,
    PYTORCH,
    SMYTH,
    entries,
)
from study.report.content import content_of
from study.report.paper.latex import Column, escape, table
from study.report.rows import Comparison, load_comparison
from study.report.write import write_report
from study.run.study import report_again

NASTY = r"50%_of & {all} #1 \x ~^$|<>[*]--" + "\n−±"
ON_SCREEN_ONLY: set[str] = set()
CONTROLS = {"uniform", "uniform_weights", "guided"}  # of Liu et al.


@pytest.fixture(autouse=True)
def small_plotly(monkeypatch):
    monkeypatch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")


def written(content: dict, runs: Path) -> Path:
    """The folder with the paper's files of a comparison that is given as the content of comparison.json."""
    write_report(Comparison.from_json(content), runs, runs / "digits", runs / "paper")
    return runs / "paper"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[dict, Path]:
    """The content of a comparison and the folder of its runs, with the report and the paper written there."""
    runs = tmp_path_factory.mktemp("runs")
    content = fabricate(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.report.write.get_plotlyjs", lambda: "/* plotly */")
        written(content, runs)
    return content, runs


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def lines_of(tex: str) -> list[str]:
    """The lines of a table between its rules, nested cells taken as one word."""
    inside = "".join(re.findall(r"\\toprule(.*?)\\bottomrule", tex, re.DOTALL))
    flat = re.sub(r"\\begin\{tabular\}\[t\].*?\\end\{tabular\}", "cell", inside)
    return [line for line in flat.splitlines() if line.rstrip().endswith(r"\\")]


def columns_of(tex: str) -> int:
    (setting,) = set(re.findall(r"\{\\begin\{tabular\}\{(.*)\}\n", tex))
    return len(re.sub(r">\{[^}]*\}|(?<=p)\{[^}]*\}", "", setting))


def check_latex(tex: str) -> None:
    """Braces and maths are closed, environments nest, every line has as many cells as the table has columns."""
    code = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\&%$#_{}]", "", code)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    assert "#" not in bare and "%" not in bare and code.isascii()
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", code):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    if r"\toprule" in code:
        for line in lines_of(code):
            assert len(re.findall(r"(?<!\\)&", line)) == columns_of(code) - 1


def test_every_character_that_latex_reads_is_escaped():
    assert escape("a_b & 50% #1 {x} $y") == r"a\_b \& 50\% \#1 \{x\} \$y"
    assert escape("\\~^|<>") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textbar{}$<$$>$"
    assert escape("[−0.4, 3.0] ± ≥ ≈ Δ “s” –") == r"{[}$-$0.4, 3.0{]} $\pm$ $\geq$ $\approx$ $\Delta$ ``s'' --"
    assert escape("a--b---c\nd") == "a-{}-b-{}-{}-c d"


def test_a_table_holds_any_text_in_every_place():
    columns = [Column(NASTY), Column(NASTY, "r"), Column("p", r"p{0.2\textwidth}")]
    tex = table(columns, [[[NASTY], [NASTY, NASTY], ["[x]"]]] * 2, caption=NASTY, label=NASTY)
    check_latex(tex)
    assert r"\label{tab:50-of-all-1-x}" in tex


def test_a_long_table_goes_on_on_the_next_page_under_one_number():
    columns = [Column("Route"), Column("Evidence", r"p{0.3\textwidth}")]
    rows = [[[f"route {i}"], ["words " * 30]] for i in range(40)]
    tex = table(columns, rows, caption="What was found. " * 20, label="long")
    check_latex(tex)
    parts = tex.split(r"\end{table*}")[:-1]
    assert len(parts) > 3 and [p.count(r"\addtocounter{table}{-1}") for p in parts] == [0] + [1] * (len(parts) - 1)
    assert tex.count("What was found") == 20 and tex.count(r"\label") == 1 and f"Part 2 of {len(parts)}." in parts[1]
    assert re.findall(r"route \d+", tex) == [f"route {i}" for i in range(40)]  # each once, in order
    assert len(re.findall(r"route \d+", parts[0])) < len(re.findall(r"route \d+", parts[1]))  # the caption takes room


def test_every_sign_of_our_own_texts_is_known_to_latex():
    """A letter of any alphabet may come from the user; signs come from here."""
    study = Path(paper.__file__).parents[2]
    ours = {sign for file in study.rglob("*.py") for sign in file.read_text() if ord(sign) > 127 and not sign.isalpha()}
    unknown = {sign for sign in ours if not escape(sign).isascii()}
    assert len(ours) > 5 and unknown <= ON_SCREEN_ONLY


@pytest.mark.slow
@pytest.mark.skipif(which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_latex_sets_the_paper(tmp_path):
    content = with_grid(fabricate(tmp_path, seeds=(0, 1, 2)))
    out = written(content, tmp_path)
    inputs = "".join(rf"\input{{{name}}}" for name in ("results", "claims", "figures"))
    head = r"\documentclass[twocolumn]{article}\usepackage{array,booktabs,graphicx,url}\begin{document}"
    end = r"\nocite{*}\bibliographystyle{plain}\bibliography{citation}\end{document}"
    (out / "article.tex").write_text(f"{head}\n{inputs}\n{end}\n")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "article"]
    for command in (latex, ["bibtex", "article"], latex, latex):
        done = subprocess.run(command, cwd=out, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "Float too large" not in done.stdout and "undefined" not in done.stdout
    assert not re.search(r"Overfull \\hbox \((\d{2,})", done.stdout), done.stdout[-4000:]


def test_a_latex_file_of_others_is_not_written_over(tmp_path, plain):
    content = fabricate(tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "results.tex").write_text(r"\documentclass{article}")
    with pytest.raises(Refusal, match=r"--paper .*paper: results\.tex is there and not of a report"):
        written(content, tmp_path)
    assert [file.name for file in (tmp_path / "paper").iterdir()] == ["results.tex"]
    written(*plain)  # ours are made again


def test_the_files_of_a_paper(plain):
    out = plain[1] / "paper"
    figures = {f"against-{key}.{form}" for key in ("backbone_macs", "train_macs") for form in ("pdf", "svg")}
    texts = {"results.tex", "claims.tex", "figures.tex", "means.csv", "differences.csv", "claims.csv", "citation.bib"}
    assert {file.name for file in out.iterdir()} == figures | texts
    for file in out.glob("*.tex"):
        check_latex(file.read_text())
    for name in re.findall(r"\{([\w-]+\.pdf)\}", (out / "figures.tex").read_text()):
        assert (out / name).is_file()


def test_the_main_table_says_what_the_report_says(plain):
    content, runs = plain
    tex = (runs / "paper" / "results.tex").read_text()
    found = content_of(Comparison.from_json(content), runs, runs / "digits").table
    line = next(line for line in found.lines if line.route.name == "scratch_b")
    row = next(line for line in tex.splitlines() if line.strip().startswith("Scratch-B &"))
    at = found.columns.index("Δ AP to unpruned")
    number, interval, shown = (line.cells[at].text, *line.cells[at].notes[:2])
    assert f"{escape(f'{number} {interval}')} \\\\ {escape(shown)}" in row
    assert escape("± 0.4") in row and "(n = 2)" not in row
    caption = tex[tex.index(r"\caption") :]
    for words in ("over n = 2 seeds", r"95 \% interval", "hold together", "Two seeds are few", "Unpruned"):
        assert words in caption
    assert escape("Δ AP to Prune-C") in tex and "textbf" not in tex


def test_claims_have_the_verdicts_of_the_report_and_its_rule(plain):
    content, runs = plain
    out = runs / "paper"
    found = content_of(Comparison.from_json(content), runs, runs / "digits")
    assert (runs / "digits" / "claims.csv").read_text() == (out / "claims.csv").read_text()
    rows = read_csv(out / "claims.csv")
    assert list(rows[0])[:8] == "statement place verdict estimate low high confidence n".split()
    assert list(rows[0])[8:] == "df p detectable power method scope source".split()
    assert [(r["statement"], r["verdict"]) for r in rows] == [(f.statement.text, f.verdict) for f in found.findings]
    for row in rows:
        above = float(row["low"]) > 0
        below = float(row["high"]) < 0
        if ">" in row["statement"]:
            assert row["verdict"] == ("supported" if above else "contradicted" if below else "undecided")
    tex = (out / "claims.tex").read_text()
    assert escape(found.rule) in tex and escape("Scratch-E ≥ Prune-C") in tex
    for finding in found.findings:
        assert f"& {finding.verdict} & {escape(finding.evidence)} &" in tex


def test_differences_and_means_have_all_digits_and_the_grid(tmp_path):
    content = with_grid(fabricate(tmp_path, seeds=(0, 1, 2)))
    out = written(content, tmp_path)
    means = {(r["route"], r["prune.ratio"]): r for r in read_csv(out / "means.csv")}
    one = means["scratch_b", "0.5"]
    assert one["print_name"] == "Scratch-B" and one["AP_n"] == "3"
    assert float(one["AP_mean"]) == pytest.approx((59.6 + 60.2 + 60.6) / 3)
    for row in read_csv(out / "differences.csv"):
        covers = float(row["low"]) <= 0 <= float(row["high"])
        assert row["verdict"] == ("not shown" if covers else "shown") and row["confidence"] == "0.95"
    assert (out / "along-prune-ratio.pdf").is_file()


def test_nothing_is_decided_by_one_seed(tmp_path):
    out = written(fabricate(tmp_path, seeds=(0,)), tmp_path)
    claims, differences = read_csv(out / "claims.csv"), read_csv(out / "differences.csv")
    assert {(r["verdict"], r["low"], r["p"], r["df"]) for r in claims} == {("undecided", "", "", "")}
    assert {(r["verdict"], r["low"]) for r in differences} == {("not decidable", "")}
    assert json.loads((tmp_path / "digits" / "comparison.json").read_text())["claims"][0]["high"] is None


def test_a_route_of_any_name_is_printed_as_it_is(tmp_path):
    content = fabricate(tmp_path)
    for row in content["rows"]:
        if row["pipeline"] == "scratch_e":
            row["pipeline"] = NASTY
    content["title"] = NASTY
    out = written(content, tmp_path)
    for file in out.glob("*.tex"):
        check_latex(file.read_text())
    assert escape(NASTY) in (out / "results.tex").read_text()


def test_figures_are_a_column_wide_with_text_that_is_text(plain, tmp_path):
    content, runs = plain
    out = runs / "paper"
    svg = ET.parse(out / "against-train_macs.svg").getroot()
    assert float(svg.attrib["width"].removesuffix("pt")) == pytest.approx(3.3 * 72)
    words = {"".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"AP", "Unpruned", "Prune-C", "Prune-D", "Scratch-E", "Scratch-B", "No pretraining"} <= words
    code = (out / "against-train_macs.svg").read_text()
    assert all(PIPELINES[row["pipeline"]].look.colour in code for row in content["rows"])
    pdf = (out / "against-train_macs.pdf").read_bytes()
    assert b"/Type0" in pdf and b"/Type3" not in pdf
    assert (written(fabricate(tmp_path), tmp_path) / "against-train_macs.pdf").read_bytes() == pdf


def test_a_study_without_results_has_a_paper_too(tmp_path):
    content = fabricate(tmp_path)
    out = written({**content, "rows": [], "stages": {}}, tmp_path)
    assert (out / "claims.tex").read_text().endswith("% No statement of the literature is about what was run.\n")
    check_latex((out / "results.tex").read_text())


def test_a_file_is_no_folder_for_a_paper(tmp_path):
    (tmp_path / "paper").write_text("")
    with pytest.raises(ValueError, match=r"--paper .*paper: a file, not a folder"):
        written(fabricate(tmp_path), tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_no_study_has_no_paper(tmp_path, there):
    study = tmp_path / "study"
    if there:
        study.mkdir()
    with pytest.raises(ValueError, match="not the directory of a study"):
        report_again(study, tmp_path / "paper")
    assert not (tmp_path / "paper").exists()


def test_the_citation_names_what_was_used(tmp_path):
    content = fabricate(tmp_path)
    for stage in content["stages"].values():
        stage["result"]["settings"] = {"method": "l1_filter"} if stage["kind"] == "prune" else {}
    text = (written(content, tmp_path) / "citation.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)
    assert keys[:3] == ["prune_transfer", "liu2019rethinking", "paszke2019pytorch"] and len(set(keys)) == len(keys)
    assert "li2017pruning" in keys and "luo2017thinet" not in keys and "holm1979simple" in keys
    assert text.count("{") == text.count("}")


def test_every_method_has_its_source():
    assert METHODS.keys() - BY_METHOD.keys() == CONTROLS


def test_every_regime_at_the_dense_rates_has_its_source():
    assert {"fine_tune", *BY_REGIME} == set(RETRAINING)


def test_the_list_of_references_has_all_that_is_cited_and_nothing_else():
    cited = {LIU, HOLM, SMYTH, PYTORCH, DEPENDENCIES, *BY_METHOD.values(), *BY_REGIME.values()}
    assert entries().keys() == cited.union(*BY_TOPIC.values())
    assert all(re.match(rf"@\w+\{{{key},\n", entry) and entry.endswith("\n}") for key, entry in entries().items())


@pytest.mark.parametrize("pipelines", [PIPELINES, CLASSIFIER_PIPELINES])
def test_print_names_tell_the_routes_apart_and_are_short(pipelines):
    names = [pipeline.print_name for pipeline in pipelines.values()]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 16


def test_the_comparison_is_read_again_as_it_was_collected(plain):
    content, runs = plain
    collected = Comparison.from_json(content)
    again = load_comparison(runs / "digits")
    assert again.rows == collected.rows and again.stages == collected.stages
    assert [claim.verdict for claim in again.claims] and again == load_comparison(runs / "digits/comparison.json")
