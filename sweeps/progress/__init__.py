"""How far running trials are between their reports, how fast, and how long a sweep still takes."""
