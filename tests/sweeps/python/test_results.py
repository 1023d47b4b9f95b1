"""What a sweep tells in Python: the best as arguments, tables, figures, and short texts of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from transformers import TrainingArguments

import sweeps
from results.errors import NothingToSay
from sweeps import ExpectedError, Sweep
from sweeps.errors import RunFolderError
from tests.sweeps.cli.conftest import SWEEP as SWEEP
from tests.sweeps.cli.conftest import folder as folder
from tests.sweeps.cli.conftest import ran as ran


@pytest.fixture
def sweep(ran: Path) -> Sweep:
    """A sweep of four trials that has ended, in a folder that was renamed."""
    return Sweep.load(ran.rename(ran.with_name("renamed")))


def test_the_best_can_be_given_to_transformers_and_peft(sweep: Sweep, tmp_path: Path) -> None:
    best = sweep.best
    assert best.loss == min(sweep.results["eval_loss"].dropna())
    row = sweep.results.set_index("number").loc[best.number]
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, **best.config)
    assert arguments.learning_rate == row["learning_rate"]
    assert arguments.max_steps == 100
    assert (best.embedding_learning_rate or 0) == pytest.approx(row["embedding_learning_rate"])
    assert LoraConfig(**best.lora).modules_to_save == ["embed_tokens", "lm_head"]
    assert best.adapter is None
    adapter = sweep.run_folder / "trials" / f"{best.number:04}" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").touch()
    assert sweep.best.adapter == adapter
    assert best.settings["training"]["learning_rate"] == arguments.learning_rate


def test_results_and_reports_are_tables(sweep: Sweep) -> None:
    assert list(sweep.results["number"]) == [0, 1, 2, 3]
    assert set(sweep.reports.columns) == {"number", "percent", "eval_loss"}


def test_figures_are_plotlys_and_say_what_they_lack(sweep: Sweep) -> None:
    import plotly.graph_objects as go

    assert isinstance(sweep.plot.learning_rate(), go.Figure)
    assert isinstance(sweep.plot.curves(), go.Figure)
    with pytest.raises(NothingToSay, match="finished trials; there"):
        sweep.plot.importance()
    assert repr(sweep.plot).startswith("Plots of 'small': learning_rate(), curves()")


def test_everything_shows_itself_in_a_few_lines(sweep: Sweep) -> None:
    verdict = sweep.verdict(write=False)
    shown: list[Any] = [sweep, sweep.answer, sweep.best, verdict, sweep.status(), sweep.plan()]
    for each in shown:
        lines = repr(each).splitlines()
        assert 3 <= len(lines) <= 6, lines
        assert "small" in lines[0] or each is shown[2]
        assert each._repr_html_().count("<tr>") == len(lines) - 1


def test_what_is_shown_in_a_notebook_is_escaped(sweep: Sweep) -> None:
    data = sweep.config.data.__class__(train="<script>alert(1)</script>")
    page = Sweep(sweep.config.model_copy(update={"data": data}))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_sweep_that_has_not_started_shows_itself_and_refuses_results(folder: Path) -> None:
    sweep = Sweep.load(folder / "s.yaml")
    assert "finished" not in repr(sweep)
    for name in ("answer", "best", "results"):
        with pytest.raises(RunFolderError, match="has no study yet"):
            getattr(sweep, name)
    assert not sweep.run_folder.exists()


def test_every_error_has_one_base() -> None:
    from files_and_text.problems import InputError
    from lora_runner.errors import RunnerError
    from results.errors import ResultsError

    for kind in (InputError, RunnerError, ResultsError, sweeps.SweepError):
        assert issubclass(kind, ExpectedError)


def test_the_package_is_imported_at_once() -> None:
    code = "import sys, sweeps; from sweeps import Sweep; print(sweeps.__version__, *sys.modules)"
    version, *modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version)
    assert not {"torch", "ray", "pandas", "plotly", "optuna", "transformers"} & set(modules)
