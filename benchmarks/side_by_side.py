"""Trials per hour of one device: packs beside one peft process per trial, each with its own base.

The peer loads its model for every trial, as is usual, but already quantized and from the page cache, its best
case, and the best number of processes at once is the peer. Both sides train a few steps; a trial's time is
extrapolated from them.
"""

from __future__ import annotations

from argparse import Namespace

from benchmarks.harness.budget import Budget
from benchmarks.harness.processes import scratch
from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import forget, this_device
from benchmarks.peers.packs_and_processes import Comparison
from benchmarks.peers.peft_processes import write_base
from benchmarks.training_steps.case import Case
from benchmarks.training_steps.goals import LLAMA_8B
from benchmarks.training_steps.random_llama import SHAPES

FIRST_SEATS = (8, 32)
"""Packs of these are measured before the peer, and the others after it."""


def compare(comparison: Comparison, given: Namespace) -> None:
    """Measure both sides, the most telling first."""
    report, case = comparison.report, comparison.case
    first = [seats for seats in given.seats if seats in FIRST_SEATS] or given.seats[:1]
    comparison.packs(first, resident=True)
    if given.save:
        report.save()
    with scratch() as folder:
        write_base(case, folder / "base")
        forget(case.device)
        comparison.peers(given.processes, folder / "base", folder / "meeting")
    if given.save:
        report.save()
    comparison.packs([seats for seats in given.seats if seats not in first], resident=True)
    comparison.packs(first[:1], resident=False)


def parse_options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", choices=list(SHAPES), help="model; default by device")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument(
        "--processes",
        nargs="+",
        type=int,
        default=[1, 8, 4, 12, 2],
        help="the peer's, at once, the most telling first",
    )
    parser.add_argument("--seats", nargs="+", type=int, default=[8, 32, 1], help="trials of a pack")
    parser.add_argument("--steps", type=int, help="steps to measure")
    parser.add_argument("--trial-steps", type=int, default=300, help="steps of a trial")
    parser.add_argument("--seconds", type=float, help="leave out what would not end within these")
    return parser.parse_args()


def main() -> None:
    """Measure both sides; if one fails, the other's figures remain."""
    given = parse_options()
    budget = Budget(given.seconds)
    device, dtype = this_device()
    cuda = device.type == "cuda"
    if given.quick:
        given.tokens, given.processes, given.seats = 32, [1, 2], [4, 1]
    steps = given.steps or (2 if given.quick else 6 if cuda else 4)
    case = Case(
        shape=SHAPES[given.shape or (LLAMA_8B if cuda and not given.quick else "demo")],
        num_tokens=given.tokens,
        device=device,
        dtype=dtype,
        rank=given.rank,
        certified=True,
    )
    case.machine()  # before anything multiplies: see `certified_decision`
    report = Report(
        "side-by-side",
        f"Random NF4 weights, {case.title}, LoRA of rank {case.rank} on all linear layers, computing in "
        f"{case.dtype}; forward, backward, clipping, fused AdamW. peft: a process per trial. {steps} steps "
        f"were measured on either side, means; a trial of {given.trial_steps} is that multiplied.",
    )
    comparison = Comparison(report, case, steps=steps, trial_steps=given.trial_steps, budget=budget)
    report.note("tokens/s and step ms are of training alone; start s is imports, base and adapter.")
    report.note(
        "The peer loads a quantized folder from the page cache, its best case; a pack's sweep is taken to "
        "start in the time of one such process. Processes that have loaded wait while fewer train; the start "
        "of a number that was not started together is interpolated. Evaluation, checkpoints and the search "
        "are on neither side."
    )
    with report.finished(save=given.save):
        compare(comparison, given)


if __name__ == "__main__":
    main()
