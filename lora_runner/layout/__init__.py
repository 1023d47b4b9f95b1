"""Where the tokens of several seats lie in one pass, and the keys and values kept of them."""
