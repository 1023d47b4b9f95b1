"""The `sweeps` command: parse, call a method of `Sweep`, print, end with an exit code."""
