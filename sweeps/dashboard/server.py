"""optuna-dashboard for one sweep, as an application behind the guard and as a server of its own."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING

import optuna

from sweeps.dashboard.guard import Guard
from sweeps.dashboard.study_view import StudyView
from sweeps.loopback.report_page import has_report
from sweeps.loopback.server import LoopbackServer, bind
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import storage_of, study_id_of
from sweeps.study.lease import refuse_unless_free

if TYPE_CHECKING:
    from sweeps.sweep import Sweep


def open_dashboard(sweep: Sweep, *, port: int | None = None, writable: bool = False) -> LoopbackServer:
    """The dashboard of a sweep that has started, also while it runs.

    `port` None: the first free one from 8080 on. Raises PortTaken, and what `dashboard_app` raises.
    """
    app = dashboard_app(sweep, writable=writable)
    server = bind(port)
    server.set_app(app)
    return server


def dashboard_app(sweep: Sweep, *, writable: bool = False) -> Guard:
    """The guarded application. Raises what `Sweep.study` raises, and StudyHeld for a `writable` one while the
    sweep runs, when only its keeper may write.
    """
    # Takes a second to import.
    from optuna_dashboard import wsgi

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = sweep.study()
    if writable:
        refuse_unless_free(study, seconds=sweep.config.reliability.lease_seconds)
        study = optuna.load_study(study_name=study.study_name, storage=open_storage(sweep.storage_url))

    def study_note() -> str:
        if has_report(sweep.run_folder):
            return "[Report of this sweep](/report)"
        return f"No report yet: `sweeps report {sweep.run_folder}` writes it; then it is linked here."

    view = StudyView(storage_of(study), study_id_of(study), writable=writable, study_note=study_note)
    # Its log messages repeat those of the database driver, which may contain the URL.
    log = logging.getLogger("optuna_dashboard")
    log.propagate, log.handlers = False, [logging.NullHandler()]
    return Guard(
        wsgi(view),
        home=f"/dashboard/studies/{study_id_of(study)}",
        run_folder=sweep.run_folder,
        writable=writable,
        # Each line once: a page repeats a failing request every few seconds.
        failed=functools.cache(lambda line: print(f"dashboard: {line}", file=sys.stderr)),
    )
