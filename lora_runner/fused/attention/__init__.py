"""Attention of a fused pass, where the kernel computes what a model does."""
