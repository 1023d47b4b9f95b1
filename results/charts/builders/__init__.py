"""One builder for each chart: of a sweep and its answer, or None where there is nothing to show."""
