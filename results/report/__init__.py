"""A sweep's report: one HTML file that opens without a network.

`facts.py` reads the study once; each module of `sections/` turns these facts into blocks
(`blocks.py`); `page.py` puts the sections in order and renders `templates/`.
"""

from __future__ import annotations

from results.report.facts import ReportFacts, read_facts
from results.report.page import REPORT_FILE, render_report, write_report

__all__ = ["REPORT_FILE", "ReportFacts", "read_facts", "render_report", "write_report"]
