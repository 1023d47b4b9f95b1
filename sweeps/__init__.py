"""Sweep orchestration: sweep file, Optuna study, workers on Ray, command line.

`from sweeps import Sweep` gives the commands as methods and the results as properties (docs/python.md),
`from sweeps import load` the results as pandas tables. Every error that is raised on purpose is an
`ExpectedError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from files_and_text.problems import ExpectedError
    from sweeps.errors import SweepError
    from sweeps.run.callbacks import StopSweep
    from sweeps.run.run_result import RunResult
    from sweeps.study.report import Report
    from sweeps.sweep import Sweep, load

    __version__: str

_WHERE = {
    "ExpectedError": "files_and_text.problems",
    "Report": "sweeps.study.report",
    "RunResult": "sweeps.run.run_result",
    "StopSweep": "sweeps.run.callbacks",
    "Sweep": "sweeps.sweep",
    "SweepError": "sweeps.errors",
    "load": "sweeps.sweep",
}
__all__ = [
    "ExpectedError",
    "Report",
    "RunResult",
    "StopSweep",
    "Sweep",
    "SweepError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    # Late: the command line imports `sweeps` and must start without pydantic and yaml.
    if name == "__version__":
        from importlib.metadata import version

        return version("qlora-sweeps")
    if name not in _WHERE:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
