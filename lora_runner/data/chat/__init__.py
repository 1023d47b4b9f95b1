"""Conversations -> text rendered by a chat template, with the spans that carry loss."""
