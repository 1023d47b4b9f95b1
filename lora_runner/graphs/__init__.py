"""Captured passes: the decoder's forward and backward pass recorded once per bucket of sizes and replayed."""
