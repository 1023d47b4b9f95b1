"""Sweep orchestration: sweep file, Optuna study, workers on Ray, command line.

`from sweeps import Sweep` gives the commands as methods, `from sweeps import load` the results as pandas
tables.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.run.run_sweep import RunResult
    from sweeps.sweep import Sweep, load

__all__ = ["RunResult", "Sweep", "load"]


def __getattr__(name: str) -> Any:
    # Late: the command line imports `sweeps` and must start without pydantic and yaml.
    if name not in __all__:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    return getattr(import_module("sweeps.run.run_sweep" if name == "RunResult" else "sweeps.sweep"), name)
