"""From the guideline rows that hold for a run to the range, default and values of a dimension."""
