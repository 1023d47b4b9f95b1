"""Cost of a trial without its training: `python -m benchmarks.orchestration [--save] [--quick]`.

Ours is the real fleet (`benchmarks/empty_trials/fleet.py`), the peer Ray Tune with OptunaSearch and ASHA
(`benchmarks/peers/tune_asha.py`). Trials report instantly, which leaves drawing, scheduling, reporting,
pruning and recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.empty_trials.losses import REDUCTION_FACTOR, REPORT_PERCENTS
from benchmarks.harness.processes import run_for_outcome
from benchmarks.harness.report import Report, arguments

OUR_TRIALS, PEER_TRIALS = 200, 40
QUICK_OUR_TRIALS, QUICK_PEER_TRIALS = 16, 4


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side's run; seconds since its process started."""

    name: str
    seconds: float
    cpu_seconds: float
    ray_ready: float
    ended: tuple[float, ...]
    """When each trial ended, ascending."""
    num_pruned: int

    @property
    def trial_seconds(self) -> float:
        """Seconds per further trial, without start-up: from the first trial's end to the last one's."""
        return (self.ended[-1] - self.ended[0]) / (len(self.ended) - 1)


def measure(name: str, module: str, options: Sequence[object]) -> Side:
    """Run one side in its own process."""
    process, result = run_for_outcome(module, options)
    return Side(
        name=name,
        seconds=process.seconds,
        cpu_seconds=process.cpu_seconds,
        ray_ready=result["ready"] - process.started,
        ended=tuple(moment - process.started for moment in result["ended"]),
        num_pruned=result["states"].get("PRUNED", 0),
    )


def main() -> None:
    """Measure both sides and print the report."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--trials", type=int, default=None, help=f"of our side (default {OUR_TRIALS})")
    parser.add_argument("--peer-trials", type=int, default=None, help=f"of the peer (default {PEER_TRIALS})")
    parser.add_argument("--seats", type=int, default=8, help="trials side by side on our side")
    options = parser.parse_args()
    trials = options.trials or (QUICK_OUR_TRIALS if options.quick else OUR_TRIALS)
    peer_trials = options.peer_trials or (QUICK_PEER_TRIALS if options.quick else PEER_TRIALS)
    peer_arguments = ["--trials", peer_trials]
    peer = measure("Ray Tune, a process per trial", "benchmarks.peers.tune_asha", peer_arguments)
    sides = [
        measure(
            f"this program, {options.seats} seats",
            "benchmarks.empty_trials.fleet",
            ["--trials", trials, "--seats", options.seats],
        ),
        peer,
    ]
    if not options.quick:
        kept = measure(
            "Ray Tune, kept processes", "benchmarks.peers.tune_asha", [*peer_arguments, "--reuse-actors"]
        )
        sides.append(kept)
    ours = sides[0]
    report = Report(
        name="orchestration",
        fixed=(
            f"On both sides: trials that report {len(REPORT_PERCENTS)} values instantly, Optuna's TPE over "
            f"three dimensions, asynchronous successive halving by {REDUCTION_FACTOR} from the first report "
            "on, all cores. Ours writes all of a trial to SQLite; the peer's study is in memory, its fastest."
        ),
    )
    report.table(
        "Trials without training; moments in seconds since before the process was made",
        ["side", "trials", "pruned", "Ray ready", "first ended", "last ended", "end", "CPU s", "s per trial"],
        [
            [
                s.name,
                len(s.ended),
                s.num_pruned,
                s.ray_ready,
                s.ended[0],
                s.ended[-1],
                s.seconds,
                s.cpu_seconds,
                s.trial_seconds,
            ]
            for s in sides
        ],
    )
    report.note("a trial's cost leaves out start-up: from the first trial's end to the last one's, by trials")
    report.figure("empty_trial_seconds", ours.trial_seconds)
    report.figure("peer_empty_trial_seconds", peer.trial_seconds)
    report.figure("empty_trial_time_ratio", peer.trial_seconds / ours.trial_seconds)
    if not options.quick:
        report.figure("empty_trial_time_ratio_kept_processes", kept.trial_seconds / ours.trial_seconds)
    report.figure("time_to_first_trial_ratio", peer.ended[0] / ours.ended[0])
    report.finish(save=options.save)


if __name__ == "__main__":
    main()
