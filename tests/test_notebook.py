"""The notebook in examples/ runs as it stands, without a network, and holds nothing of a machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "sweep.ipynb"

pytestmark = [
    # Of the libraries that talk to the kernel, when it has ended.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`in_a_kernel(notebook)`: run it with this Python in an empty folder; returns its cells with outputs."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_ALLOW_INSECURE_WRITES", "1")

    def run(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
        manager = KernelManager(kernel_name="python3")
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = manager.kernel_spec
        assert spec is not None
        spec.argv = command
        there = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, km=manager, timeout=300, resources=there).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


def shown(cell: nbformat.NotebookNode, kind: str = "text/plain") -> str:
    return "\n".join(str(output["data"].get(kind, "")) for output in cell.outputs if "data" in output)


def test_it_is_stripped_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert set(cell["metadata"]) == set()
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [path for path in ("/home", "/root", "/work", "/tmp", "C:\\") if path in text]


@pytest.mark.slow
def test_it_runs_from_records_to_an_export(in_a_kernel: Any, tmp_path: Path) -> None:
    cells = in_a_kernel(nbformat.read(NOTEBOOK, as_version=4))
    by_start = {cell.source.splitlines()[0]: cell for cell in cells}

    def cell(start: str) -> nbformat.NotebookNode:
        return next(found for line, found in by_start.items() if line.startswith(start))

    assert shown(cell("sweep.plan()")).startswith("Plan of 'notebook'")
    run = cell("reports = []")
    assert "The run has ended: 5 of 5 trials" in shown(run)
    screens = [output for output in run.outputs if output.output_type == "display_data"]
    assert len(screens) == 1, "one output follows the sweep"
    assert "5 of 5 trials" in screens[0]["data"]["text/html"]
    assert "outcome=" in shown(cell("reports[-1]"))
    assert "Not yet: one run per configuration." in shown(cell("sweep.answer"))
    for start in ("sweep.plot.learning_rate()", "sweep.plot.curves()"):
        (figure,) = cell(start).outputs
        assert figure["data"]["application/vnd.plotly.v1+json"]["data"]
    assert "3 seeds" in shown(cell("sweep.confirm"))
    assert "train.py" in shown(cell("[path.name"))
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
    assert (tmp_path / "runs" / "notebook" / "export" / "trl" / "train.py").is_file()
    assert "5 of 5 finished" in shown(cell("Sweep.load"))
