"""Orchestration: a sweep file becomes a study, a fleet of workers on Ray, and an answer.

`from sweeps import Sweep` gives the command line's verbs as functions, `from sweeps import load` its results
as pandas tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.sweep import RunResult, Sweep, load

__all__ = ["RunResult", "Sweep", "load"]


def __getattr__(name: str) -> Any:
    # Late, because a sweep needs Optuna and pandas, and `sweeps.config` is read without them.
    if name in __all__:
        from sweeps import sweep

        return getattr(sweep, name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
