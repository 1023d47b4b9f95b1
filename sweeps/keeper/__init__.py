"""The keeper: the only one that writes to the study. It hands out trials and takes their reports."""
