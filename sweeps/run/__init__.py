"""`sweeps run`: train on Ray until the trials are finished, then write the results."""
