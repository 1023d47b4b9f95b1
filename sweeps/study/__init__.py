"""The Optuna study of a sweep: its identity, lease, samplers, pruners, status, and its move elsewhere."""
