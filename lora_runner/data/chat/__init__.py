"""Conversations -> the texts of a chat template, with the spans that carry loss."""
