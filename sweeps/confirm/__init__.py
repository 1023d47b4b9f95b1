"""`sweeps confirm`: the best configuration and the tables' own on new seeds."""
