"""How well the curve model foretells losses that it has not seen."""
