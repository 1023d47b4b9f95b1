"""What came out of a sweep: tables, verdicts against the guidelines, the best config and its exports."""

from __future__ import annotations

from results.best import best_config, read_best_config, write_best
from results.errors import (
    AdapterFilesError,
    DamagedReplicates,
    ExportError,
    LossyExport,
    NothingToSay,
    ResultsError,
    TableError,
    UnknownTarget,
    WouldOverwrite,
)
from results.evidence import (
    ALPHA,
    MARGIN,
    Arm,
    Comparison,
    Replicate,
    compare,
    compare_all,
    is_clear,
    reference,
    relation,
)
from results.export import TARGETS, ExportResult, export
from results.files import atomic_write, atomic_write_json
from results.markdown import to_markdown
from results.render import print_verdict, render
from results.replicates import CONFIRM_SUFFIX, Replicates, read_replicates
from results.row_verdict import Cost, RowVerdict
from results.table_files import Tables, read_tables, tables, write_tables
from results.tables import reports_frame, trials_frame, write_trials_csv
from results.verdict import Edge, TrialSummary, Verdict, judge_sweep, verdict
from results.verdict_files import write_verdict
from results.words import WORDS, Word, decide

__all__ = [
    "ALPHA",
    "CONFIRM_SUFFIX",
    "MARGIN",
    "TARGETS",
    "WORDS",
    "AdapterFilesError",
    "Arm",
    "Comparison",
    "Cost",
    "DamagedReplicates",
    "Edge",
    "ExportError",
    "ExportResult",
    "LossyExport",
    "NothingToSay",
    "Replicate",
    "Replicates",
    "ResultsError",
    "RowVerdict",
    "TableError",
    "Tables",
    "TrialSummary",
    "UnknownTarget",
    "Verdict",
    "Word",
    "WouldOverwrite",
    "atomic_write",
    "atomic_write_json",
    "best_config",
    "compare",
    "compare_all",
    "decide",
    "export",
    "is_clear",
    "judge_sweep",
    "print_verdict",
    "read_best_config",
    "read_replicates",
    "read_tables",
    "reference",
    "relation",
    "render",
    "reports_frame",
    "tables",
    "to_markdown",
    "trials_frame",
    "verdict",
    "write_best",
    "write_tables",
    "write_trials_csv",
    "write_verdict",
]
