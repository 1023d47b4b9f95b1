"""Everything a sweep decides before it starts, and `sweeps plan`, which prints it."""
