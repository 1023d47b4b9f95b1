"""Sweep orchestration: sweep file, Optuna study, workers on Ray, command line.

`from sweeps import Sweep` gives the commands as methods, `from sweeps import load` the results as pandas
tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.sweep import RunResult, Sweep, load

__all__ = ["RunResult", "Sweep", "load"]


def __getattr__(name: str) -> Any:
    # Late: the command line imports `sweeps` and must start without pydantic and yaml.
    if name in __all__:
        from sweeps import sweep

        return getattr(sweep, name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
