"""A report prints its figures so that a script can read them, and saves them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.harness import report as module
from benchmarks.harness.report import Report, shown


def a_report() -> Report:
    report = Report(name="nothing", fixed="Both sides did nothing.", command="python -m benchmarks.nothing")
    report.table("Sides", ["side", "seconds"], [["ours", 0.12345], ["theirs", 12345.6]])
    report.figure("nothing_ratio", 4.0)
    report.figure("unmeasured", math.nan)
    report.note("nobody was measured")
    return report


def test_figures_are_printed_one_a_line_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    a_report().finish(save=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["nothing_ratio: 4", "unmeasured: nan"]
    assert "Both sides did nothing." in lines
    assert "| ours   | 0.123   |" in lines
    assert "| theirs | 12346   |" in lines
    assert not list(tmp_path.iterdir())


def test_a_saved_report_is_markdown_beside_json_with_exact_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "machine", lambda: {"cores": "2"})
    report = a_report()
    del report.figures["unmeasured"]
    report.figure("exact", 1 / 3)
    report.finish(save=True)
    kept = json.loads((tmp_path / "bench-nothing-cpu.json").read_text())
    assert kept["figures"] == {"nothing_ratio": 4.0, "exact": 1 / 3}
    assert kept["machine"] == {"cores": "2"}
    assert kept["command"] == "python -m benchmarks.nothing"
    text = (tmp_path / "bench-nothing-cpu.md").read_text()
    assert text.startswith("# nothing\n")
    assert "| theirs | 12346   |" in text
    assert "- nobody was measured" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (1234.5, "1234"), (7, "7"), ("as is", "as is")]
)
def test_floats_are_shown_with_three_digits(value: object, text: str) -> None:
    assert shown(value) == text


def test_an_interrupted_report_says_what_was_measured_until_then(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "machine", lambda: {"cores": "2"})
    report = a_report()
    del report.figures["unmeasured"]
    with report.finished(save=True):
        report.figure("late", 3.0)
        raise KeyboardInterrupt
    assert "late: 3\n" in capsys.readouterr().out
    kept = json.loads((tmp_path / "bench-nothing-cpu.json").read_text())
    assert kept["notes"][-1] == "Interrupted: the rest was not measured."


def test_a_report_of_a_failure_is_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), a_report().finished(save=False):
        raise RuntimeError("an illegal memory access\nCompile with TORCH_USE_CUDA_DSA")
    printed = capsys.readouterr().out
    assert "- Failed, the rest was not measured: RuntimeError: an illegal memory access\n" in printed
    assert "nothing_ratio: 4\n" in printed


def test_a_table_replaces_that_of_the_same_title() -> None:
    report = a_report()
    report.table("More", ["a"], [[1]])
    report.table("Sides", ["side"], [["ours"]])
    assert [(title, rows) for title, _, rows in report.tables] == [("Sides", [["ours"]]), ("More", [["1"]])]
