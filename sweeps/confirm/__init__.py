"""`sweeps confirm`: the best trials, the guideline default and the rows' own values again on new seeds."""
