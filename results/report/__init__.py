"""A sweep's report: one HTML file that opens without a network.

`facts.py` reads the study once; each section of the page is a module that turns facts into blocks
(`blocks.py`); `page.py` puts them in order and renders `templates/`.
"""

from __future__ import annotations

from results.report.facts import Facts, read_facts
from results.report.page import REPORT_FILE, render_report, write_report

__all__ = ["REPORT_FILE", "Facts", "read_facts", "render_report", "write_report"]
