"""Packs and peft processes measured on one device, and the table of both, as it grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.harness.budget import Budget
from benchmarks.harness.memory import peak_reserved_bytes
from benchmarks.harness.report import Report
from benchmarks.harness.timing import forget, seconds
from benchmarks.peers.peft_process import PHASES, WAIT_SECONDS, Spec, batch_of
from benchmarks.peers.peft_processes import PeftProcesses
from benchmarks.training_steps.case import Case, PackTrials, free_memory
from benchmarks.training_steps.goals import LLAMA_8B, TO_BEST, TO_ONE, goal_table
from lora_runner.errors import first_line
from lora_runner.pack.pack import Pack

SWEEP = 96
"""Trials of the extrapolated sweep: whole rounds of every number at once."""
GIB = 2**30
COLUMNS = ("", "at once", "step ms", "tokens/s in all", "tokens/s a trial", "start s", "device GiB")
COLUMNS += ("trials an hour", "times one process", "times the best number")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One measurement: that many trials at once, in a pack or as processes."""

    name: str
    at_once: int
    step: float
    """Seconds of a step of all trials at once."""
    tokens: float
    """Tokens in such a step, of all trials."""
    device_bytes: int
    """What torch's allocators took at most, of all processes."""
    is_peer: bool

    def trials_per_hour(self, steps: int, start: float) -> float:
        """Trials of `steps` steps an hour, in a sweep of SWEEP.

        `start` is the seconds until the first step: of the peer in every round, of a pack once.
        """
        rounds = -(-SWEEP // self.at_once)
        training = rounds * steps * self.step
        return 3600 * SWEEP / (training + start * (rounds if self.is_peer else 1))


def tokens_a_step(case: Case, at_once: int, steps: int) -> float:
    """Return the tokens, without padding, in the micro-batches of that many trials, mean over the steps."""
    return sum(len(row) for trial in range(steps * at_once) for row in case.sequences(trial)) / steps


class Comparison:
    """The two sides as they are measured, and the table of both."""

    def __init__(self, report: Report, case: Case, *, steps: int, trial_steps: int, budget: Budget) -> None:
        self.report, self.case, self.budget = report, case, budget
        self.steps, self.trial_steps = steps, trial_steps
        self.sides: list[Side] = []
        self.starts: dict[int, float] = {}
        """Seconds from the start of that many processes together until the last had loaded."""
        self.left_out: list[tuple[str, int, str]] = []
        """What was not measured, of how many at once, and why."""

    # --- packs ----------------------------------------------------------------------------------------

    def packs(self, seats: Sequence[int], *, resident: bool) -> None:
        """Measure packs of these sizes, on one base."""
        case = replace(self.case, resident=resident)
        name = f"pack{', dequantized once' * resident}"
        pack: Pack | None = None
        for at_once in seats:
            if not self.budget.allows():
                self._leave_out(name, at_once, self.budget.left_out)
                continue
            try:
                pack = pack or case.new_pack()
                self.sides.append(self._pack_side(name, case, pack, at_once))
                self.tell()
            except torch.OutOfMemoryError:
                self._leave_out(name, at_once, "did not fit")
            except RuntimeError as error:  # the other side may still be measured
                pack = None
                self.report.note(f"A {name} of {at_once} failed: {first_line(error)}")
                self._leave_out(name, at_once, "failed")
            if pack is not None:
                free_memory(pack)
            forget(case.device)

    def _pack_side(self, name: str, case: Case, pack: Pack, at_once: int) -> Side:
        with peak_reserved_bytes(case.device) as reserved:
            trials = PackTrials(case, at_once, pack)
            drawn = [
                trials.batches([case.sequences(batch_of(step, i, at_once)) for i in range(at_once)])
                for step in range(self.steps)
            ]
            longest = trials.batches([case.sequences(i, equal=True) for i in range(at_once)])
            for batches in (longest, *drawn):  # graphs are captured once for each size
                pack.train_step(batches)
            times = [
                seconds(lambda batches=batches: pack.train_step(batches), case.device)  # type: ignore[misc]
                for batches in drawn
            ]
        return Side(
            name=name,
            at_once=at_once,
            step=mean(times),
            tokens=tokens_a_step(case, at_once, self.steps),
            device_bytes=reserved.peak,
            is_peer=False,
        )

    # --- the peer -------------------------------------------------------------------------------------

    def peers(self, numbers: Sequence[int], base: Path, meeting: Path) -> None:
        """Measure these numbers of processes at once, of which none loads again for a smaller number."""
        meeting.mkdir()
        spec = Spec(
            base=str(base),
            shape=asdict(self.case.shape),
            num_tokens=self.case.num_tokens,
            rank=self.case.rank,
            steps=self.steps,
            index=0,
            threads=1,
            meeting=str(meeting),
        )
        with PeftProcesses(spec) as processes:
            for index, at_once in enumerate(numbers):
                refused = self._refusal(at_once, len(processes))
                if refused:
                    self._leave_out("peft", at_once, refused)
                    continue
                try:
                    self._peer_sides(processes, at_once)
                except (RuntimeError, TimeoutError) as error:
                    self.report.note(f"{at_once} processes at once: {error}")
                    self._leave_out("peft", at_once, "failed")
                    rest = numbers[index + 1 :]
                    break
            else:
                return
        for number in rest:
            if number >= at_once:
                self._leave_out("peft", number, f"left out, {at_once} at once failed")
        fewer = [number for number in rest if number < at_once]
        if fewer:
            self.peers(fewer, base, meeting.with_name(f"{meeting.name}-{len(fewer)}"))

    def _refusal(self, at_once: int, loaded: int) -> str:
        """Why that many processes are not measured; empty if they are."""
        cores = len(os.sched_getaffinity(0))
        if at_once > cores:
            return f"left out, {cores} cores"
        sizes = [side.device_bytes / side.at_once for side in self.sides if side.is_peer]
        if sizes and self.case.device.type == "cuda":
            have = torch_memory(self.case)
            if at_once * min(sizes) > have:
                return f"does not fit in {have / GIB:.0f} GiB"
        starts = [*self.starts.values()]
        expected = max(starts, default=0.0) if at_once > loaded else 0.0
        return "" if self.budget.allows(expected) else self.budget.left_out

    def _peer_sides(self, processes: PeftProcesses, at_once: int) -> None:
        left = WAIT_SECONDS
        if self.budget.seconds is not None:
            left = min(left, max(1.0, self.budget.seconds - self.budget.spent))
        processes.wait_seconds = left
        more = at_once - len(processes)
        if more > 0:
            taken = processes.start(more)
            if taken is None:
                raise RuntimeError("one does not fit in memory with its base")
            self.starts[more] = taken
        found = processes.train(at_once)
        for phase in PHASES:
            results = [one[phase] for one in found]
            if all(results):
                self.sides.append(self._peer_side(phase, at_once, results))
                self.tell()
            else:
                self._leave_out(peer_name(phase), at_once, "did not fit")

    def _peer_side(self, phase: str, at_once: int, results: Sequence[Any]) -> Side:
        return Side(
            name=peer_name(phase),
            at_once=at_once,
            step=mean(mean(result["step_seconds"]) for result in results),
            tokens=tokens_a_step(self.case, at_once, self.steps),
            device_bytes=sum(result["device_bytes"] for result in results),
            is_peer=True,
        )

    # --- the table ------------------------------------------------------------------------------------

    def _leave_out(self, name: str, at_once: int, reason: str) -> None:
        self.left_out.append((name, at_once, reason))
        self.tell()

    def start(self, side: Side) -> float:
        """Seconds until a side's first step: between those of the numbers that were started together."""
        if not self.starts:
            return 0.0
        numbers = sorted(self.starts)
        at_once = side.at_once if side.is_peer else 1
        return float(np.interp(at_once, numbers, [self.starts[number] for number in numbers]))

    def rate(self, side: Side) -> float:
        """Trials an hour."""
        return side.trials_per_hour(self.trial_steps, self.start(side))

    def tell(self) -> None:
        """Add the table of what has been measured so far, and the ratios of the best of each side."""
        ours = [side for side in self.sides if not side.is_peer]
        theirs = [side for side in self.sides if side.is_peer]
        one = max((self.rate(side) for side in theirs if side.at_once == 1), default=None)
        best = max(theirs, key=self.rate, default=None)
        rows: list[list[Any]] = []
        for side in self.sides:
            rate = self.rate(side)
            row = [side.name, side.at_once, 1e3 * side.step, side.tokens / side.step]
            row += [side.tokens / side.step / side.at_once, self.start(side), side.device_bytes / GIB, rate]
            row += ["-" if one is None else rate / one, "-" if best is None else rate / self.rate(best)]
            rows.append(row)
        dashes = ["-"] * (len(COLUMNS) - 3)
        rows += [[name, at_once, reason, *dashes] for name, at_once, reason in self.left_out]
        report = self.report
        report.table(f"Trials of {self.trial_steps} steps, in a sweep of {SWEEP}", COLUMNS, rows)
        for words, group in (("seats", ours), ("processes", theirs)):
            if group:
                report.figure(f"{words}_that_fit", float(max(side.at_once for side in group)))
        to_one = to_best = None
        if ours and theirs:
            assert best is not None
            most = max(map(self.rate, ours))
            report.figure("best_number_of_processes", float(best.at_once))
            report.figure("trials_per_hour_best", most)
            report.figure("trials_per_hour_best_processes", self.rate(best))
            to_best = most / self.rate(best)
            report.figure("trials_per_hour_ratio", to_best)
            if one is not None:
                to_one = most / one
                report.figure("trials_per_hour_ratio_to_one_at_a_time", to_one)
        if self.case.device.type == "cuda" and self.case.shape.name == LLAMA_8B:
            goal_table(report, [(TO_ONE, to_one), (TO_BEST, to_best)])


def peer_name(phase: str) -> str:
    """What the table calls the peer in a phase."""
    return "peft" + (", gradient checkpointing" if phase == "checkpointing" else "")


def torch_memory(case: Case) -> int:
    """Bytes of the device."""
    return int(torch.cuda.get_device_properties(case.device).total_memory)
