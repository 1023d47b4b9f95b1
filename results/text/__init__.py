"""The sentences of a verdict, made from its numbers and codes; only renderers and the report import them."""
