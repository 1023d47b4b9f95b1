"""The command line: parse, call a method of `Sweep`, print, exit with a code."""
