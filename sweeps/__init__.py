"""Orchestration: a sweep file becomes a study, a fleet of workers on Ray, and an answer.

`from sweeps import Sweep` gives the command line's verbs as functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.sweep import RunResult, Sweep

__all__ = ["RunResult", "Sweep"]


def __getattr__(name: str) -> Any:
    # Late, because a sweep needs Optuna and pandas, and `sweeps.config` is read without them.
    if name in __all__:
        from sweeps import sweep

        return getattr(sweep, name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
