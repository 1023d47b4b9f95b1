"""The margin, the error rate and what it is shared among."""

MARGIN = 0.005
"""Share of the reference's loss below which a difference does not matter."""
MOST_MARGIN = 0.5
"""With a larger margin nearly all values would count as equal."""

ALPHA = 0.05
"""Family-wise error rate of a confirmation: the largest probability that any of its verdicts is wrong."""

MIN_PAIRS = 3
"""With fewer pairs there is no interval: two differences do not show their spread."""

INTERVAL_SHARE = 0.8
"""Share of alpha for the intervals. The rest is for lost runs: each further pair divides p by about ten."""

TOLERATED_LOSS_RATE = 0.1
"""Share of runs that may end early at a value that is not too high."""
