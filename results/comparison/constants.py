"""The margin, the error rate and how it is shared out."""

MARGIN = 0.005
"""Share of the reference's loss below which a difference does not matter."""
MOST_MARGIN = 0.5
"""With a larger margin nearly all values would count as equal."""

ALPHA = 0.05
"""Family-wise error rate of a confirmation: the largest probability that any of its verdicts is wrong."""

MIN_PAIRS = 3
"""With fewer pairs there is no interval: two differences do not show their spread."""
MOST_SEEDS = 8
"""Seeds per arm that a confirmation is designed for when no budget says otherwise."""

INTERVAL_SHARE = 0.8
"""Share of alpha for the intervals. The rest is for lost runs: each further pair divides p by about ten."""
RESERVE = 0.1
"""Share of the intervals' alpha that is kept for seeds beyond those of the design."""
DEFAULT_RUNS = 60
"""Runs of a confirmation that tests rows, where neither runs nor hours are given."""
SPENDING_POWER = 3
"""Alpha is spent as (n / N) to this power: little while few seeds are in, most of it at the last ones."""

ASSUMED_NOISE = 0.002
"""Standard deviation of one run, its seed accounted for, as a share of the loss; before it is measured."""

PRIOR_DEGREES = 2
"""Degrees of freedom that the other arms' variance may add to an arm's own. With more, noisy arms beside
quiet ones are called wrongly too often."""

LARGEST_LOSS = 1e6
"""Nats per token; a run that ends above it counts as diverged."""
TOLERATED_LOSS_RATE = 0.1
"""Share of runs that may end early at a value that is not too high."""
