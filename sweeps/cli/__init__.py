"""The `sweeps` command: parse, call a method of `Sweep`, print, end with an exit code.

Importing these modules takes a tenth of a second: a command imports what it needs when it runs.

main.py             the app, `--version`, and errors as messages with exit codes
arguments.py        arguments and options that several commands share
run_commands.py     demo, init, plan, run, confirm, stop, move
watch_commands.py   status, results, dashboard, track
result_commands.py  verdict, table-verdict, report, export, merge

new_sweep_file.py   what `init` writes
record_text.py      what `plan --show-record` prints
table_verdict.py    what `table-verdict` does
merge_adapter.py    what `merge` does
"""
