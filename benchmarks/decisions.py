"""What `curve_gp` costs the keeper: processor time of a fit, a proposal and a stop decision.

On simulated trials of 5 dimensions with five reports each. A fit is made once for all that is decided between
two reports. Processor time, which other load hardly changes; one thread, as in the keeper.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.simulator.curves import SimulatedTrials
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.sweeps import REPORT_AT
from benchmarks.simulator.worlds import MODEL_SIZES, WORLDS, space
from search_spaces import SearchSpace
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.decisions import chances, fitted, propose
from sweeps.study.curve_gp.features import params_of, quasi_random

TRIALS = (16, 64, 200, 300)


def curves(made: SearchSpace, num_trials: int, seed: int) -> list[Curve]:
    """Trials that have ended, spread evenly over the space; some broke."""
    generator = np.random.default_rng([seed, num_trials])
    world = WORLDS["cliff, 5 dimensions"]
    surface = world.draw(generator)
    assert isinstance(surface, Surface)
    trials = SimulatedTrials(
        surface=surface, noise=world.noise, report_at=tuple(REPORT_AT), generator=generator
    )
    dimensions = len(made.dimensions)
    found = []
    for number, shares in enumerate(
        quasi_random(num_trials, dimensions, start=0, shift=np.zeros(dimensions))
    ):
        params = params_of(made, shares.tolist())
        run = trials.curve(params)
        reports = {p: v for p, v in run.losses.items() if run.diverged_at is None or p < run.diverged_at}
        state: Any = "ended" if run.diverged_at is None else "broken"
        found.append(Curve(number=number, params=params, reports=reports, state=state))
    return found


def timed(call: Callable[[], Any]) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    call()
    return time.process_time() - began


def costs(num_trials: int, seed: int = 0) -> tuple[float, float, float]:
    """Seconds of the fit, and then of a proposal and of a stop decision that use it."""
    made = space(5, MODEL_SIZES[0])
    told = curves(made, num_trials, seed)
    return (
        timed(lambda: fitted(made, told)),
        timed(lambda: propose(made, told, number=num_trials, seed=seed)),
        timed(lambda: chances(made, told)),
    )


def main() -> None:
    """Print a line for each number of trials: the median of some sets of trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=list(TRIALS))
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    for num_trials in options.trials:
        found = np.array([costs(num_trials, seed) for seed in range(options.repeat)])
        fit, proposal, stop = np.median(found, axis=0)
        print(
            f"{num_trials} trials: fit {fit:.2f} s (most {found[:, 0].max():.2f}), "
            f"proposal {proposal:.3f} s, stop decision {stop:.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
