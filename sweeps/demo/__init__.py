"""`sweeps demo`: a sweep on a small base and a dataset, both made from Python's standard library."""
