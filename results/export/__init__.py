"""The best config in the form that another program takes."""

from __future__ import annotations

from results.export.registry import TARGETS, export
from results.export.target import ExportDraft, ExportResult, Target

__all__ = ["TARGETS", "ExportDraft", "ExportResult", "Target", "export"]
