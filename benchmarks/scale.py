"""How keeper and fleet scale with seats and finished trials: `python -m benchmarks.scale [--save] [--quick]`.

The keeper alone on growing studies, on each storage, beside Optuna (`empty_trials/keeper_timings.py`);
the real fleet on several logical Ray nodes with trials that train nothing (`empty_trials/fleet.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.empty_trials.keeper_timings import Point, measure
from benchmarks.harness.processes import ROOT, run_for_outcome, scratch
from benchmarks.harness.report import Report, arguments

FINISHED, SEATS = (100, 1000, 3000, 10_000), (8, 100, 1000)
QUICK_FINISHED, QUICK_SEATS = (50, 100), (8, 40)
STORAGES = ("sqlite", "journal", "postgresql")
BUSY_LOAD = 1.5
"""Load of the machine before the benchmark starts; above it, other work ran too."""


def sizes(finished: tuple[int, ...], seats: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return (finished, seats): one grows while the other stays at its second value."""
    points = [(count, seats[1]) for count in finished]
    return points + [(finished[1], count) for count in seats if count != seats[1]]


@contextmanager
def storage_urls(names: list[str], report: Report) -> Iterator[dict[str, Callable[[Path], str]]]:
    """Yield for each storage a function from a folder to the URL of an empty study."""
    made: dict[str, Callable[[Path], str]] = {
        "sqlite": lambda folder: f"sqlite:///{folder / 'study.db'}",
        "journal": lambda folder: f"journal:{folder / 'study.log'}",
    }
    made = {name: made[name] for name in names if name in made}
    if "postgresql" not in names:
        yield made
        return
    sys.path.insert(0, str(ROOT))
    from tests.postgresql import NoPostgreSQL, running_server

    try:
        with running_server() as server:
            yield made | {"postgresql": lambda folder: server.new_database()}
    except NoPostgreSQL as reason:
        report.note(f"PostgreSQL was left out: {reason}")
        yield made


def measure_keepers(report: Report, options: Any, finished: tuple[int, ...], seats: tuple[int, ...]) -> None:
    """Measure the keeper alone: random search on every storage, TPE on one."""
    points: list[Point] = []
    with storage_urls(options.storages, report) as urls:
        rows = [(storage, "random") for storage in urls]
        rows.append(("journal" if "journal" in urls else next(iter(urls)), "tpe"))
        for storage, sampler in rows:
            for size in sizes(finished, seats):
                with scratch() as folder:
                    (folder / "run").mkdir()
                    done, taken = size
                    url = urls[storage](folder)
                    point = measure(storage, url, folder / "run", sampler=sampler, finished=done, seats=taken)
                print(f"{storage} {sampler} {done} finished, {taken} seats: {point}", flush=True)
                points.append(point)
    report.table(
        "The keeper alone; milliseconds, memory in MiB",
        [
            *("storage", "sampler", "finished", "seats", "ask", "Optuna's ask", "report", "Optuna's report"),
            *("end", "status", "opening", "memory"),
        ],
        [
            [
                *(p.storage, p.sampler, p.finished, p.seats),
                *(1e3 * p.ask_seconds, 1e3 * p.optuna_ask_seconds),
                *(1e3 * p.report_seconds, 1e3 * p.optuna_report_seconds),
                *(1e3 * p.end_seconds, 1e3 * p.status_seconds, 1e3 * p.open_seconds, p.memory_mib),
            ]
            for p in points
        ],
    )
    for storage, sampler in rows:
        mine = {(p.finished, p.seats): p for p in points if (p.storage, p.sampler) == (storage, sampler)}
        figures(report, f"{storage}_{sampler}", mine, finished, seats)


def figures(
    report: Report,
    name: str,
    points: dict[tuple[int, int], Point],
    finished: tuple[int, ...],
    seats: tuple[int, ...],
) -> None:
    """Add the figures at the largest size, and their growth over the smallest."""
    small, large = points[finished[0], seats[1]], points[finished[-1], seats[1]]
    few, many = points[finished[1], seats[0]], points[finished[1], seats[-1]]
    report.figure(f"{name}_ask_seconds", large.ask_seconds)
    report.figure(f"{name}_report_seconds", large.report_seconds)
    grown = finished[-1] - finished[0]
    report.figure(f"{name}_memory_kib_per_trial", 1024 * (large.memory_mib - small.memory_mib) / grown)
    report.figure(f"{name}_open_seconds_per_1000_trials", 1e3 * large.open_seconds / finished[-1])
    report.figure(f"{name}_ask_growth_with_finished", large.ask_seconds / small.ask_seconds)
    report.figure(f"{name}_report_growth_with_finished", large.report_seconds / small.report_seconds)
    report.figure(f"{name}_ask_growth_with_seats", many.ask_seconds / few.ask_seconds)
    report.figure(
        f"{name}_optuna_ask_growth_with_finished", large.optuna_ask_seconds / small.optuna_ask_seconds
    )


def measure_fleet(report: Report, *, trials: int, workers: int, seats: int, seconds: float) -> None:
    """Measure the real fleet."""
    size = ["--trials", trials, "--nodes", workers, "--seats", seats, "--seconds", seconds]
    _, fleet = run_for_outcome("benchmarks.empty_trials.fleet", ["--sampler", "random", *size])
    ended = fleet["ended"]
    report.table(
        "The fleet on Ray with nothing to train, random search, SQLite",
        [
            "workers",
            "trials over",
            "at once",
            "s in all",
            "ms per trial",
            "keeper CPU ms per trial",
            "keeper MiB",
        ],
        [
            [
                *(fleet["workers"], len(ended), fleet["most_at_once"], ended[-1] - fleet["ready"]),
                1e3 * (ended[-1] - fleet["ready"]) / len(ended),
                1e3 * fleet["keeper_cpu_seconds"] / len(ended),
                fleet["keeper_peak_mib"],
            ]
        ],
    )
    report.note("under way: drawn and not over; in all: from before the keeper began to the last trial's end")
    if len(ended) < trials:
        report.note(f"of {trials} trials, {len(ended)} fitted the {seconds:.0f} s that the fleet was given")
    report.figure("fleet_trials", len(ended))
    report.figure("fleet_under_way_at_once", fleet["most_at_once"])
    report.figure("fleet_left_running", fleet["states"].get("RUNNING", 0))
    report.figure("fleet_seconds_per_trial", (ended[-1] - fleet["ready"]) / len(ended))
    report.figure("fleet_keeper_peak_mib", fleet["keeper_peak_mib"])


def main() -> None:
    """Measure and print the report."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--finished", type=int, nargs="*", help=f"at least 2 sizes, default {FINISHED}; none: the fleet alone"
    )
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--trials", type=int, default=None, help="of the fleet; 0 skips it")
    parser.add_argument("--workers", type=int, default=2, help="of the fleet, each on a logical node")
    parser.add_argument("--seconds", type=float, default=300.0, help="for which the fleet starts trials")
    options = parser.parse_args()
    given = options.finished
    finished = tuple(given or (QUICK_FINISHED if options.quick else FINISHED))
    if len(finished) < 2:
        parser.error(f"--finished needs at least 2 sizes to show growth, got {len(finished)}")
    seats = QUICK_SEATS if options.quick else SEATS
    trials = options.trials if options.trials is not None else 40 if options.quick else 10_000
    busy, started = os.getloadavg()[0], time.monotonic()
    report = Report(
        name="scale",
        fixed=(
            "Three dimensions, three reports a trial, successive halving by 2, a pack of 32 seats that "
            "reports in one call (8 where there are no more). Studies are filled in bulk with copies of "
            "a few real trials. Optuna's own ask and report run on a study in memory that holds "
            "the same trials, which is its fastest. Memory is what a new keeper takes beyond a process that "
            "has imported the program, what its libraries take for themselves included: read its growth."
        ),
    )
    if given != []:
        measure_keepers(report, options, finished, seats)
        conclude(report, busy, started, save=options.save)
    if trials:
        fleet = Report(
            name="scale-fleet",
            fixed="The real keeper, fleet and workers on a Ray of several nodes, with nothing to train.",
        )
        total = 16 if options.quick else seats[-1]
        each = -(-total // options.workers)
        started = time.monotonic()
        measure_fleet(fleet, trials=trials, workers=options.workers, seats=each, seconds=options.seconds)
        conclude(fleet, busy, started, save=options.save)


def conclude(report: Report, busy: float, started: float, *, save: bool) -> None:
    """Print a report with notes on the run."""
    if busy > BUSY_LOAD:
        report.note(
            f"other work ran beside it: the load was {busy:.1f} before it began, so times are too long, "
            "and only ratios within the run mean something"
        )
    report.note(f"measuring took {time.monotonic() - started:.0f} s")
    report.finish(save=save)


if __name__ == "__main__":
    main()
