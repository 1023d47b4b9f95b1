"""The workers on Ray: started, watched, restarted, and shown while they run.

run_fleet.py         the Tune experiment that keeps the workers running
worker.py            the worker: one trainable, one session
training_session.py  what a worker needs of a session
endpoints.py         keeper and file server as actors
fleet_size.py        how many workers fit, and what each reserves
ray_start.py         starting or joining Ray
early_exits.py       workers that end before they can call the keeper
watchdog.py          ends a worker that hangs
signals.py           Ctrl-C and SIGTERM
live_view.py         the live table and the log lines
"""
