"""docs/python.md: its blocks compile, name what exists, and those that need no training run."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps.python.best import Best
from sweeps.python.plots import Plots
from sweeps.sweep import Sweep
from tests.sweeps.cli.conftest import folder as folder
from tests.sweeps.cli.conftest import ran as ran

PAGE = (Path(__file__).parents[3] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
CLASSES: dict[str, Any] = {"Sweep": Sweep, "sweep": Sweep, "plot": Plots, "best": Best}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_names_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "sweeps":
            for alias in node.names:
                assert getattr(sweeps, alias.name) is not None
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if owner in CLASSES:
                known = {*dir(CLASSES[owner]), *getattr(CLASSES[owner], "__annotations__", {})}
                assert node.attr in known, f"{owner}.{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            if owner in CLASSES and node.func.attr != "new":
                signature = inspect.signature(getattr(CLASSES[owner], node.func.attr))
                names = [keyword.arg for keyword in node.keywords]
                assert set(names) <= set(signature.parameters), names


def test_results_plots_and_errors_run_as_they_stand(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder with a run called demo; each line that reads something gives something."""
    monkeypatch.chdir(ran.parent.parent)
    shutil.copytree(ran, ran.with_name("demo"))
    results = next(block for block in BLOCKS if "sweep.best.lora" in block)
    # The simulated trials have no adapters for best/.
    lines = [line for line in results.splitlines() if re.match(r"sweep\.(?!write_results)", line)]
    found: dict[str, Any] = {}
    exec(results.partition("sweep.answer ")[0], found)
    for line in lines:
        value = eval(line.partition("#")[0], found)
        assert (value is None) == line.startswith("sweep.best.adapter"), line
    exec(
        next(block for block in BLOCKS if "plot.importance" in block).partition("plot.learning_rate()")[0],
        found,
    )
    assert found["plot"].curves().data
    errors = next(block for block in BLOCKS if "trails=8" in block)
    capsys.readouterr()
    exec(errors)
    assert capsys.readouterr().out.strip() in errors
