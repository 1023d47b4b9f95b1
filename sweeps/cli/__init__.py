"""The `sweeps` command: parse, call a method of `Sweep`, print, end with an exit code.

Importing these modules takes a tenth of a second: a command imports what it needs when it runs.

main.py             the app, `--version`, and errors as messages with exit codes
arguments.py        arguments and options that several commands share
run_commands.py     demo, init, plan, run, confirm, stop, move
watch_commands.py   status, results, dashboard, track
result_commands.py  verdict, table-verdict, report, export, merge
"""
