"""What a sweep says about every guideline row, in numbers and codes.

`verdict` builds the whole: `measure` a row, `decide` its word; `results.text` makes the sentences.
"""
