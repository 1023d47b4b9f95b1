"""The notebook in examples/ runs as it stands, without a network, and holds nothing of a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "sweep.ipynb"

# In a process of its own: the sockets to the kernel are closed when it ends.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
source, target, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
try:
    client.execute()
finally:
    nbformat.write(notebook, target)
"""


def executed(notebook: Path, folder: Path) -> list[nbformat.NotebookNode]:
    """The code cells with their outputs, run with this Python in an empty folder."""
    kernels = folder / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "x", "language": "python"})
    )
    work, target = folder / "work", folder / "executed.ipynb"
    work.mkdir()
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PATH": str(folder / "jupyter"),
    }
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(notebook), str(target), str(work)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    read = nbformat.read(target, as_version=4)
    return [cell for cell in read.cells if cell.cell_type == "code"]


def shown(cell: nbformat.NotebookNode, kind: str = "text/plain") -> str:
    return "\n".join(str(output["data"].get(kind, "")) for output in cell.outputs if "data" in output)


def pages(cell: nbformat.NotebookNode) -> list[str]:
    """HTML of what the cell displayed, without its value."""
    outputs = [output for output in cell.outputs if output.output_type == "display_data"]
    return [str(output["data"].get("text/html", "")) for output in outputs]


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
def test_it_runs_from_records_to_an_export(tmp_path: Path) -> None:
    cells = executed(NOTEBOOK, tmp_path)
    by_start = {cell.source.splitlines()[0]: cell for cell in cells}

    def cell(start: str) -> nbformat.NotebookNode:
        return next(found for line, found in by_start.items() if line.startswith(start))

    assert shown(cell("sweep.plan()")).startswith("Plan of 'notebook'")
    run = cell("reports = []")
    assert "The run has ended: 5 of 5 trials" in shown(run)
    screens = [page for page in pages(run) if "of 5 trials" in page]
    assert len(screens) == 1, "one output follows the sweep"
    assert "5 of 5 trials" in screens[0]
    assert "outcome=" in shown(cell("reports[-1]"))
    assert "Not yet: one run per configuration." in shown(cell("sweep.answer"))
    for start in ("sweep.plot.learning_rate()", "sweep.plot.curves()"):
        (figure,) = cell(start).outputs
        assert figure["data"]["application/vnd.plotly.v1+json"]["data"]
    assert "3 seeds" in shown(cell("sweep.confirm"))
    assert "train.py" in shown(cell("[path.name"))
    assert (tmp_path / "work" / "runs" / "notebook" / "report.html").is_file()
    assert (tmp_path / "work" / "runs" / "notebook" / "export" / "trl" / "train.py").is_file()
    assert "5 of 5 finished" in shown(cell("Sweep.load"))
