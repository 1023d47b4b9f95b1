"""What a sweep says of every guideline row: measured, decided, and put into words."""
