"""The results of a sweep: tables, verdicts on the guidelines, the best config, exports and the report."""
