"""What came out of a sweep: tables, verdicts against the guidelines, the best config and its exports."""
