"""Guideline rows -> the dimensions of one search space, each with the rows that its values came from."""
