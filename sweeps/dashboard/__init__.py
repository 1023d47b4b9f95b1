"""optuna-dashboard for a sweep's study, on the loopback interface only and read-only by default.

study_view.py   the storage that optuna-dashboard reads: one study, with notes, without writes
guard.py        which requests may reach optuna-dashboard
server.py       port, threads, Ctrl-C
"""
