"""What a person sees of a sweep while it runs and afterwards, in a terminal or a log."""
