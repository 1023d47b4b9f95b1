"""The LoRA branches of all trials at once, forward and backward, with dropout inside."""
