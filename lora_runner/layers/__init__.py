"""What the base's modules become in a pack: each computes for several seats at once."""
