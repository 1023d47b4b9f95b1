"""Where the time of a pack's training step goes, and the least time that the hardware allows."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import forget, seconds, this_device, what_fits
from benchmarks.training_steps.case import Case, PackTrials, free_memory
from benchmarks.training_steps.goals import IDLE, LLAMA_1B, LLAMA_8B, STEP_MS, goal_table
from benchmarks.training_steps.kernel_parts import GAPS, PARTS
from benchmarks.training_steps.lower_bound import Ceilings, LowerBound
from benchmarks.training_steps.random_llama import SHAPES
from benchmarks.training_steps.step_profile import Shares, profile_step
from lora_runner.errors import first_line
from lora_runner.pack.pack import Pack

FAST_SECONDS = 0.3
"""Slower steps are repeated about half as often."""
SUMMARY = "Steps"
SUMMARY_COLUMNS = ("model", "trials", "base", "graphs", "path", "step ms", "floor ms", "floor / step, %")
SUMMARY_COLUMNS += ("device busy, ms", "idle, %", "kernels")


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a pack computes."""

    resident: bool = True
    graphs: bool = True
    fused: bool = True
    most: int
    """Numbers of trials for which it is measured."""


WAYS = {
    "usual": Way(most=3),
    "no-graphs": Way(graphs=False, most=2),
    "general": Way(graphs=False, fused=False, most=1),
    "dequantized": Way(resident=False, most=1),
}
"""The most telling first. usual: a resident base, and the fused path, captured, where it can be taken."""


@dataclass(frozen=True)
class Planned:
    """One model with its options, and the numbers of trials to measure, the most telling first."""

    case: Case
    seats: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The step of one pack."""

    path: str
    captured: int
    """Passes that were captured as graphs."""
    step: float
    """Seconds of a step, unwatched."""
    least: float
    """Seconds that the hardware allows."""
    shares: Shares


def plans(given: Namespace, case: Case) -> Iterator[Planned]:
    """Yield what to measure, the most telling first; the packs of one base stay together."""
    on_cuda = case.device.type == "cuda" and not given.quick
    names = given.shape or ([LLAMA_8B, LLAMA_1B] if on_cuda else ["demo"])
    # Without choice: on a GPU what a sweep takes where memory allows, then what each part of it is worth.
    for name_of_way in given.ways or (WAYS if on_cuda else ("dequantized", "usual")):
        way = WAYS[name_of_way]
        for name in names:
            first = (1, 8, 32) if name == LLAMA_1B else (8, 1, 32)
            seats = tuple(given.seats or (first[: way.most] if on_cuda else (8,)))
            options = {"resident": way.resident, "graphs": way.graphs, "fused": way.fused}
            yield Planned(replace(case, shape=SHAPES[name], **options), seats)


class Floor:
    """The report, as it grows."""

    def __init__(self, report: Report, ceilings: Ceilings, budget: Budget, repetitions: int) -> None:
        self.report, self.ceilings, self.budget = report, ceilings, budget
        self.repetitions = repetitions
        self.rows: list[list[Any]] = []
        self.steps_ms: dict[tuple[str, int], float] = {}
        """The first that was found of each shape and number of trials."""
        self.idle: float | None = None

    def measure(self, planned: Planned, device: torch.device) -> None:
        """Measure the packs of one base that fit in memory and time."""
        pack: Pack | None = None
        for num_seats in planned.seats:
            if not self.budget.allows():
                self._summarise(planned.case, num_seats, self.budget.left_out)
                continue
            title = self._title(planned.case, num_seats)
            found: Found | str = "did not fit"
            with what_fits(self.report, title):
                try:
                    pack = pack or planned.case.new_pack()
                    found = measure_pack(planned.case, pack, num_seats, self.ceilings, self.repetitions)
                    self._say_path(pack)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:  # the others may still be measured
                    found, pack = "failed", None
                    self.report.note(f"{title} failed: {first_line(error)}")
            self._summarise(planned.case, num_seats, found)
            if isinstance(found, Found):
                self._detail(planned.case, num_seats, found)
            if pack is not None:
                free_memory(pack)
            forget(device)

    def _say_path(self, pack: Pack) -> None:
        """Note, once, how each part of the model is computed."""
        text = f"{pack.base.spec.model}, " + "; ".join(pack.path.describe()) + "."
        if pack.path.is_fused and pack.captures()[1]:
            text += f" No graphs: {pack.captures()[1]}."
        if text not in self.report.notes:
            self.report.note(text)

    def _title(self, case: Case, num_seats: int) -> str:
        ways = ", dequantized once" * case.resident + ", no graphs" * (case.fused and not case.graphs)
        ways += ", general path" * (not case.fused)
        return f"{case.title}, {num_seats} seats{ways}"

    def _summarise(self, case: Case, num_seats: int, found: Found | str) -> None:
        captured = "no" if not case.graphs else "yes" if isinstance(found, str) else str(found.captured)
        graphs = "-" if case.device.type == "cpu" else captured
        row: list[Any] = [case.shape.name, num_seats, "resident" if case.resident else "NF4", graphs]
        if isinstance(found, str):
            self.rows.append([*row, found, *["-"] * (len(SUMMARY_COLUMNS) - len(row) - 1)])
        else:
            shares, share = found.shares, found.least / found.step
            row += [found.path, 1e3 * found.step, 1e3 * found.least, 100 * share, 1e3 * shares.busy]
            self.rows.append([*row, 100 * shares.gaps / shares.wall, shares.kernels.total()])
            key = case.shape.name, num_seats
            self.steps_ms.setdefault(key, 1e3 * found.step)
            if key == (LLAMA_8B, 8) and self.idle is None:
                self.idle = 100 * shares.gaps / shares.wall
        self.report.table(SUMMARY, SUMMARY_COLUMNS, self.rows)
        if case.device.type == "cuda":
            found_ms = [(goal, self.steps_ms.get(key)) for key, goal in STEP_MS.items()]
            goal_table(self.report, [*found_ms, (IDLE, self.idle)])

    def _detail(self, case: Case, num_seats: int, found: Found) -> None:
        report, shares, title = self.report, found.shares, self._title(case, num_seats)
        _report_floor(report, title, LowerBound.of(case, num_seats), self.ceilings, found.step)
        rows: list[list[Any]] = [
            [part, 1e3 * shares.seconds[part], 100 * shares.seconds[part] / shares.wall, shares.kernels[part]]
            for part in PARTS
        ]
        rows.append([GAPS, 1e3 * shares.gaps, 100 * shares.gaps / shares.wall, ""])
        rows.append(["in all, watched", 1e3 * shares.wall, 100.0, shares.kernels.total()])
        report.table(f"Where the time goes: {title}", ["part", "ms", "% of the step", "kernels"], rows)
        suffix = f"_{case.shape.name}_k{num_seats}" if case.device.type == "cuda" else ""
        suffix += "_resident" * case.resident + "_no_graphs" * (case.fused and not case.graphs)
        suffix += "_general" * (not case.fused)
        report.figure(f"step_ms{suffix}", 1e3 * found.step)
        report.figure(f"floor_ms{suffix}", 1e3 * found.least)
        report.figure(f"floor_share{suffix}", found.least / found.step)
        report.figure(f"gaps_share{suffix}", shares.gaps / shares.wall)
        if case.device.type == "cuda":
            report.figure(f"kernels_per_trial{suffix}", shares.kernels.total() / num_seats)


def measure_pack(case: Case, pack: Pack, num_seats: int, ceilings: Ceilings, repetitions: int) -> Found:
    """Measure the step of a pack, first by the clock, then under the profiler."""
    trials = PackTrials(case, num_seats, pack)
    batches = trials.batches()

    def step() -> None:
        pack.train_step(batches)

    for _ in range(2):  # kernels are compiled and graphs captured
        step()
    slow = seconds(step, case.device) > FAST_SECONDS
    times = [seconds(step, case.device) for _ in range(repetitions // 2 + 1 if slow else repetitions)]
    least = LowerBound.of(case, num_seats).seconds(ceilings)
    return Found(pack.path.name, pack.captures()[0], median(times), least, profile_step(step, case.device))


def _report_floor(report: Report, title: str, floor: LowerBound, ceilings: Ceilings, step: float) -> None:
    products, copies = 1e3 / ceilings.products, 1e3 / ceilings.copies
    lines: Sequence[tuple[str, float, str, float]] = (
        ("frozen products", floor.frozen, "operations", products),
        ("LoRA", floor.lora, "operations", products),
        ("attention", floor.attention, "operations", products),
        ("output layer", floor.output, "operations", products),
        ("NF4 weights, twice (beside the products)", floor.weight_bytes, "bytes", copies),
        ("update", floor.update_bytes, "bytes", copies),
    )
    rows: list[list[Any]] = [
        [name, amount / 1e9, f"10^9 {unit}", amount * each] for name, amount, unit, each in lines
    ]
    rows.append(["the floor", "", "", 1e3 * floor.seconds(ceilings)])
    rows.append(["the step", "", "", 1e3 * step])
    report.table(f"The floor: {title}", ["", "at least", "", "ms"], rows)


def parse_options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="models; default by device")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--seats", nargs="+", type=int, help="trials of a pack, the most telling first")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), help="how packs compute; default by device")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--train-embeddings", action="store_true")
    parser.add_argument("--seconds", type=float, help="leave out what would not end within these")
    return parser.parse_args()


def main() -> None:
    """Measure the packs that fit, in the order of how much they tell."""
    given = parse_options()
    budget = Budget(given.seconds)
    device, dtype = this_device()
    tokens, repetitions = (64, 2) if given.quick else (given.tokens, 9)
    report = Report(
        "floor",
        f"One training step of a pack, random weights in NF4, computing in {dtype}, LoRA of rank "
        f"{given.rank} on all linear layers: its floor by operations and bytes at the rates of this "
        f"device, and where its time goes. Median of up to {repetitions} steps, shares of one more under "
        "torch's profiler.",
    )
    case = Case(
        shape=SHAPES["demo"],
        num_tokens=tokens,
        device=device,
        dtype=dtype,
        rank=given.rank,
        train_embeddings=given.train_embeddings,
        certified=True,
    )
    planned_packs = list(plans(given, case))
    for planned in planned_packs:
        planned.case.machine()  # before anything multiplies: see `certified_decision`
    report.note(
        "The floor: products of real tokens at the large product's rate, or the reading of the weights if "
        "that takes longer, then the update's 32 bytes a parameter at the copy's. Norms, activations, "
        "padding and the writing of dequantized weights are not in it: an ideal kernel would hide them."
    )
    report.note("On a CPU a part's time is that of its operations, and gaps are Python's own.")
    if device.type == "cuda":
        goal_table(report, [])
    report.table(SUMMARY, SUMMARY_COLUMNS, [])
    with report.finished(save=given.save):
        ceilings = Ceilings.measure(device, dtype)
        report.table(
            "Ceilings",
            ["", "rate"],
            [
                [f"large product in {dtype}, TFLOP/s", ceilings.products / 1e12],
                ["large copy, GB/s read and written", ceilings.copies / 1e9],
            ],
        )
        profile_step(lambda: None, device)  # the profiler's own first time
        floor = Floor(report, ceilings, budget, repetitions)
        for planned in planned_packs:
            floor.measure(planned, device)
            forget(device)
            if given.save:
                report.save()


if __name__ == "__main__":
    main()
