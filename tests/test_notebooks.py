"""The notebooks run from their first cell to their last, and are kept without output."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.fabricated_study import fabricate

from study.report.rows import Comparison
from study.report.write import write_report

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def test_notebooks_have_no_output(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prune_a_network", "read_a_study"])
def test_notebooks_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    if name == "read_a_study":
        written = write_report(Comparison.from_json(fabricate(tmp_path)), tmp_path, tmp_path / "digits")
        monkeypatch.setenv("STUDY", str(written.parent))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    said = [output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("multiply-adds" in text or "seeds (0, 1)" in text for text in said)
