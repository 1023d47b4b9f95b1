"""Trials per hour of one device: packs beside one peft process per trial, each with its own base.

The peer loads its model for every trial, as is usual, but already quantized and from the page cache, its best
case. Both sides train a few steps; a trial's time is extrapolated from them.
"""

from __future__ import annotations

import math
import os
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from benchmarks.harness.memory import used_bytes
from benchmarks.harness.processes import scratch
from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import forget, seconds, this_device, what_fits
from benchmarks.peers.peft_process import PHASES, Spec, batch_of
from benchmarks.peers.peft_processes import PeftProcesses, write_base
from benchmarks.training_steps.case import Case, PackTrials
from benchmarks.training_steps.random_llama import SHAPES

SWEEP = 64
"""Trials of the extrapolated sweep."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Side:
    """One measurement: that many trials at once, in a pack or as processes."""

    name: str
    at_once: int
    step: float
    """Seconds of a step of all trials at once."""
    tokens: float
    """Tokens in such a step, of all trials."""
    start: float
    """Seconds until the first step: for the peer per trial, for a pack per sweep."""
    device_bytes: int
    per_trial: bool

    def sweep_seconds(self, trials: int, steps: int) -> float:
        """Return the seconds of `trials` trials of `steps` steps, `at_once` at a time."""
        rounds = math.ceil(trials / self.at_once)
        training = rounds * steps * self.step
        return training + self.start * (rounds if self.per_trial else 1)

    def trials_per_hour(self, trials: int, steps: int) -> float:
        """Return the trials per hour of such a sweep."""
        return 3600 * trials / self.sweep_seconds(trials, steps)


def peft_sides(case: Case, base: Path, meeting: Path, at_once: int, steps: int) -> list[Side]:
    """Measure `at_once` processes, one per trial; phases that ran out of memory are left out."""
    meeting.mkdir()
    cores = len(os.sched_getaffinity(0))
    specs = [
        Spec(
            base=str(base),
            shape=asdict(case.shape),
            num_tokens=case.num_tokens,
            rank=case.rank,
            steps=steps,
            index=index,
            at_once=at_once,
            threads=max(1, cores // at_once),
            meeting=str(meeting),
        )
        for index in range(at_once)
    ]
    with PeftProcesses(specs) as processes:
        for phase in PHASES:
            processes.meet(f"ready-{phase}")
            specs[0].file(f"go-{phase}").touch()
            processes.meet(f"done-{phase}")
        found = processes.found()
    sides = []
    for phase in PHASES:
        results = [one["phases"].get(phase) for one in found]
        if all(results):
            times = [mean(result["step_seconds"]) for result in results]
            sides.append(
                Side(
                    name="peft" + (", gradient checkpointing" if phase == "checkpointing" else ""),
                    at_once=at_once,
                    step=mean(times),
                    tokens=tokens_a_step(case, at_once, steps),
                    start=max(one["start_seconds"] + one["load_seconds"] for one in found),
                    device_bytes=max(result["device_bytes"] for result in results),
                    per_trial=True,
                )
            )
    return sides


def tokens_a_step(case: Case, at_once: int, steps: int) -> float:
    """Return the tokens, without padding, in the micro-batches of that many trials, mean over the steps."""
    return sum(len(row) for trial in range(steps * at_once) for row in case.sequences(trial)) / steps


def packs(report: Report, case: Case, seats: Sequence[int], steps: int, start: float) -> list[Side]:
    """Measure packs of all these sizes that fit, on one base."""
    kept = ", dequantised once" if case.resident else ""
    sides: list[Side] = []
    with what_fits(report, f"a pack's base{kept}"):
        pack = case.new_pack()
        for at_once in seats:
            pack.release_memory()
            forget(case.device)
            with what_fits(report, f"a pack of {at_once}{kept}"):
                trials = PackTrials(case, at_once, pack)
                drawn = [
                    trials.batches([case.sequences(batch_of(step, i, at_once)) for i in range(at_once)])
                    for step in range(steps)
                ]
                pack.train_step(trials.batches([case.sequences(i, equal=True) for i in range(at_once)]))
                pack.train_step(drawn[0])
                times = [
                    seconds(lambda batches=batches: pack.train_step(batches), case.device)  # type: ignore[misc]
                    for batches in drawn
                ]
                sides.append(
                    Side(
                        name=f"pack{kept}",
                        at_once=at_once,
                        step=mean(times),
                        tokens=tokens_a_step(case, at_once, steps),
                        start=start,
                        device_bytes=used_bytes(case.device),
                        per_trial=False,
                    )
                )
            if not sides or sides[-1].at_once != at_once:
                break
    return sides


def tell(report: Report, sides: Sequence[Side], trial_steps: int) -> None:
    """Add the table, and the ratios of the best of each side."""
    rows = [
        [
            side.name,
            side.at_once,
            1e3 * side.step,
            side.tokens / side.step,
            side.tokens / side.step / side.at_once,
            side.start,
            side.device_bytes / GIB,
            3600 * side.at_once / (trial_steps * side.step + side.start * side.per_trial),
            side.trials_per_hour(SWEEP, trial_steps),
        ]
        for side in sides
    ]
    columns = ["", "at once", "step ms", "tokens/s in all", "tokens/s a trial", "start s", "device GiB"]
    columns += ["trials an hour", f"of a sweep of {SWEEP}"]
    report.tables.clear()
    report.table(f"Trials of {trial_steps} steps", columns, rows)
    ours = [side for side in sides if not side.per_trial]
    theirs = [side for side in sides if side.per_trial]
    for words, group in (("seats", ours), ("processes", theirs)):
        if group:
            report.figure(f"{words}_that_fit", float(max(side.at_once for side in group)))
    if ours and theirs:
        best, other = (
            max(side.trials_per_hour(SWEEP, trial_steps) for side in group) for group in (ours, theirs)
        )
        report.figure("trials_per_hour_ratio", best / other)
        alone = [side.trials_per_hour(SWEEP, trial_steps) for side in theirs if side.at_once == 1]
        if alone:
            report.figure("trials_per_hour_ratio_to_one_at_a_time", best / max(alone))


def parse_options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", choices=list(SHAPES), help="model; default by device")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4], help="the peer's, at once")
    parser.add_argument("--seats", nargs="+", type=int, default=[1, 8, 16, 32], help="trials of a pack")
    parser.add_argument("--steps", type=int, help="steps to measure")
    parser.add_argument("--trial-steps", type=int, default=300, help="steps of a trial")
    return parser.parse_args()


def main() -> None:
    """Measure both sides; if one fails, the other's figures remain."""
    given = parse_options()
    device, dtype = this_device()
    cuda = device.type == "cuda"
    if given.quick:
        given.tokens, given.processes, given.seats = 32, [1, 2], [1, 4]
    steps = given.steps or (2 if given.quick else 6 if cuda else 4)
    case = Case(
        shape=SHAPES[given.shape or ("llama-3.1-8b" if cuda and not given.quick else "demo")],
        num_tokens=given.tokens,
        device=device,
        dtype=dtype,
        rank=given.rank,
    )
    report = Report(
        "side-by-side",
        f"Random NF4 weights, {case.title}, LoRA of rank {case.rank} on all linear layers, computing in "
        f"{case.dtype}; forward, backward, clipping, fused AdamW. peft: a process per trial. {steps} steps "
        f"were measured on either side, means; a trial of {given.trial_steps} is that multiplied.",
    )
    compare(report, case, given, steps)
    report.note("tokens/s and step ms are of training alone; start s is imports, base and adapter.")
    report.note(
        "The peer loads a quantised folder from the page cache, its best case; a pack's sweep is taken to "
        "start in the time of one such process. Evaluation, checkpoints and the search are on neither side."
    )
    report.finish(save=given.save)


def compare(report: Report, case: Case, given: Namespace, steps: int) -> None:
    sides: list[Side] = []

    def keep(more: Sequence[Side]) -> None:
        sides.extend(more)
        tell(report, sides, given.trial_steps)
        if given.save:
            report.save()

    with scratch() as folder:
        write_base(case, folder / "base")
        forget(case.device)
        for at_once in given.processes:
            try:
                more = peft_sides(case, folder / "base", folder / f"at-once-{at_once}", at_once, steps)
            except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                report.note(f"{at_once} processes at once: {error}")
                break
            if len(more) < len(PHASES):
                report.note(f"{at_once} processes at once did not fit in every way.")
            keep(more)
            if not more:
                break
    start = min((side.start for side in sides if side.at_once == 1), default=0.0)
    for resident in (False, True):
        keep(packs(report, replace(case, resident=resident), given.seats, steps, start))
        forget(case.device)


if __name__ == "__main__":
    main()
