"""Triton kernels of the fused path, and the functions that launch them; no model knowledge, no autograd."""
