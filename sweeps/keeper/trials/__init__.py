"""The trials of a study that is open: seats, reports, ends, interrupted and frozen trials."""
