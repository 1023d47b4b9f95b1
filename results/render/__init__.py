"""A verdict and the trials for the terminal, as Markdown and as JSON."""
