"""How much memory a pack takes, measured on tensors without memory before anything is loaded."""
