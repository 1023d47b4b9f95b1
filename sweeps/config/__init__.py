"""The sweep file: what it may contain, how it is read, and how its resolved form is written."""

from __future__ import annotations

from sweeps.config.load import RESOLVED_NAME, load_sweep, load_text, parse_override, problem_at
from sweeps.config.resolved_file import resolved
from sweeps.config.space import space_of
from sweeps.config.storage_url import storage_url
from sweeps.config.sweep_config import SweepConfig

__all__ = [
    "RESOLVED_NAME",
    "SweepConfig",
    "load_sweep",
    "load_text",
    "parse_override",
    "problem_at",
    "resolved",
    "space_of",
    "storage_url",
]
