"""The report in a run folder as a page that may load and call nothing."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from results.report import REPORT_FILE
from sweeps.loopback.requests import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

_REPORT_POLICY = (
    # The report is one self-contained file: it may load nothing else, nor call the dashboard.
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def has_report(run_folder: Path) -> bool:
    """Whether the report has been written."""
    return (run_folder / REPORT_FILE).is_file()


def send_report(run_folder: Path, start_response: StartResponse) -> list[bytes]:
    """The report, or the command that writes it."""
    try:
        body = (run_folder / REPORT_FILE).read_bytes()
    except OSError:
        text = "There is no report yet. To write it: sweeps report RUN_FOLDER\n"
        return answer(start_response, HTTPStatus.NOT_FOUND, text.encode(), "text/plain; charset=utf-8")
    policy = [("Content-Security-Policy", _REPORT_POLICY)]
    return answer(start_response, HTTPStatus.OK, body, "text/html; charset=utf-8", policy)
