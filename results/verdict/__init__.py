"""What a sweep says about every guideline row, in numbers and codes."""
