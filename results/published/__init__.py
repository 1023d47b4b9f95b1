"""The guideline rows against a published table of runs."""
