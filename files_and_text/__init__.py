"""Files, text and names that all packages share; imports the standard library and yaml only."""
