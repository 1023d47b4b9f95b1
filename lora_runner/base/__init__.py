"""The frozen base model: loaded, quantized, identified, and its modules to train."""
