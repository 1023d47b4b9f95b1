"""Ray Tune with OptunaSearch and ASHA on trials that train nothing, beside `benchmarks.empty_trials.fleet`.

`python -m benchmarks.peers.tune_asha OUTCOME --trials N` writes when Ray was ready and trials ended.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.empty_trials.losses import (
    LEARNING_RATES,
    REDUCTION_FACTOR,
    REPORT_PERCENTS,
    SCHEDULERS,
    SEED,
    WARMUP_RATIOS,
    loss_of,
)
from benchmarks.peers.local_ray import start_local_ray


def train(config: dict[str, Any]) -> None:
    """Run one trial: report all values immediately."""
    for percent in REPORT_PERCENTS:
        tune.report({"eval_loss": loss_of(config["learning_rate"], percent), "at": time.time()})


def main() -> None:
    """Run the trials and write when they ended, in seconds since the epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--reuse-actors", action="store_true", help="one process for many trials")
    options = parser.parse_args()
    start_local_ray()
    ready = time.time()
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "learning_rate": tune.loguniform(*LEARNING_RATES),
            "warmup_ratio": tune.uniform(*WARMUP_RATIOS),
            "lr_scheduler_type": tune.choice(SCHEDULERS),
        },
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            num_samples=options.trials,
            search_alg=OptunaSearch(seed=SEED),  # with the study in memory, its fastest
            scheduler=ASHAScheduler(
                max_t=len(REPORT_PERCENTS), grace_period=1, reduction_factor=REDUCTION_FACTOR
            ),
            reuse_actors=options.reuse_actors,
        ),
        run_config=tune.RunConfig(storage_path=str(Path.cwd() / "tune"), name="empty", verbose=0),
    ).fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed; the first: {results.errors[0]}")
    ended = sorted(result.metrics["at"] for result in results)
    full = sum(result.metrics["training_iteration"] == len(REPORT_PERCENTS) for result in results)
    states = {"COMPLETE": full, "PRUNED": len(ended) - full}
    options.outcome.write_text(json.dumps({"ready": ready, "ended": ended, "states": states}))


if __name__ == "__main__":
    main()
