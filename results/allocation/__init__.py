"""Which runs of a confirmation come next: those that the undecided guideline rows wait for."""
