"""What came out of a sweep: tables, verdicts against the guidelines, the best config and its exports."""

from __future__ import annotations

from results.best import best_config, read_best_config, write_best
from results.errors import (
    AdapterFilesError,
    ExportError,
    LossyExport,
    NothingToSay,
    ResultsError,
    UnknownTarget,
    WouldOverwrite,
)
from results.export import TARGETS, ExportResult, export
from results.files import atomic_write, atomic_write_json
from results.markdown import to_markdown
from results.render import print_verdict, render
from results.row_verdict import Cost, RowVerdict
from results.tables import reports_frame, trials_frame, write_trials_csv
from results.verdict import Edge, TrialSummary, Verdict, judge_sweep, verdict
from results.verdict_files import write_verdict

__all__ = [
    "TARGETS",
    "AdapterFilesError",
    "Cost",
    "Edge",
    "ExportError",
    "ExportResult",
    "LossyExport",
    "NothingToSay",
    "ResultsError",
    "RowVerdict",
    "TrialSummary",
    "UnknownTarget",
    "Verdict",
    "WouldOverwrite",
    "atomic_write",
    "atomic_write_json",
    "best_config",
    "export",
    "judge_sweep",
    "print_verdict",
    "read_best_config",
    "render",
    "reports_frame",
    "to_markdown",
    "trials_frame",
    "verdict",
    "write_best",
    "write_trials_csv",
    "write_verdict",
]
