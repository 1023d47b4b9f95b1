"""The words of a verdict, and how they follow from comparisons."""
