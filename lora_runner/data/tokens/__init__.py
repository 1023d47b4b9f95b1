"""Texts with loss spans -> token ids, labels and batches."""
