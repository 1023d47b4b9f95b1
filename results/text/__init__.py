"""The sentences of a verdict, from its numbers and codes; only what shows a verdict imports them."""
