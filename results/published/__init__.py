"""The guideline rows against a table of runs that somebody published."""
