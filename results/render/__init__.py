"""A verdict as text: terminal, Markdown, JSON."""
