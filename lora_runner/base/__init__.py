"""The frozen base model: loaded, quantized, identified, and which of its modules are trained."""
