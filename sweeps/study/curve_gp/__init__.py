"""The sampler `curve_gp` and the pruner `freeze_thaw`: a Gaussian process over whole learning curves."""
