"""One file per program that a best config is exported to."""
