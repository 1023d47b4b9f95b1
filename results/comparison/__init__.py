"""Replicated configs against the best: paired intervals, what they show, and when to stop."""
