"""Files of a run: its folder, checkpoints and adapters, and how they reach workers on other machines."""
