"""The loss over learning rate and rank: a curve that models share, and what the runs of one model add."""
