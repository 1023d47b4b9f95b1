"""How much memory a pack needs, predicted before anything is loaded."""
