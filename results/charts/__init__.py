"""The charts of a sweep: each described once, drawn as SVG for pages and as a plotly figure for Python."""
