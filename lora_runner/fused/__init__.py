"""The fused path: a model's parts computed for all trials of a pack in few launches."""
