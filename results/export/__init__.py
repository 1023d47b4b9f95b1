"""The best config in the form another program takes."""

from __future__ import annotations

from results.export.registry import TARGETS, export
from results.export.target import Draft, ExportResult, Target

__all__ = ["TARGETS", "Draft", "ExportResult", "Target", "export"]
