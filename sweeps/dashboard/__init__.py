"""optuna-dashboard on a sweep's study: on the loopback interface, read-only unless asked.

study_view.py   the study as the dashboard sees it: one study, with notes, its writes refused
guard.py        what may pass between a browser and the dashboard
server.py       port, threads, Ctrl-C
"""

from __future__ import annotations

from sweeps.dashboard.server import DashboardServer, open_dashboard

__all__ = ["DashboardServer", "open_dashboard"]
