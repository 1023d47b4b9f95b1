"""How the tokens of several seats are arranged in one forward pass, and a key-value cache for them."""
