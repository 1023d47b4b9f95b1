"""Generation with a key-value cache, and with a pass over the whole text for every new token.

Both sides are the pack's, on the same seats and prompts, and give the same tokens. On a CPU the processor
time of all threads is measured, which other load hardly changes; on CUDA the wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import median
from unittest.mock import patch

import torch

from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import seconds, this_device
from benchmarks.training_steps.case import Case, PackTrials
from benchmarks.training_steps.random_llama import SHAPES
from lora_runner.pack.generation import TextGenerator

PROMPTS, SHORTEST, LONGEST, NEW_TOKENS = 8, 40, 64, 32
Answers = list[list[list[int]]]


def prompts(case: Case) -> list[list[int]]:
    """Return prompts of evenly spaced lengths, the same for every seat."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(SHORTEST, LONGEST, PROMPTS).round().int().tolist()
    return [torch.randint(1, case.shape.vocabulary, (n,), generator=generator).tolist() for n in lengths]


def answers(trials: PackTrials, asked: Sequence[Sequence[int]], *, cached: bool) -> Answers:
    """Return the new tokens, [seat][prompt]; no token ends an answer."""
    without = patch.object(TextGenerator, "uncached_reason", "asked for")
    with nullcontext() if cached else without:
        return trials.pack.generate(trials.seats, asked, NEW_TOKENS, stop_token_ids=())


def compare(case: Case, num_seats: int, repetitions: int, report: Report) -> None:
    """Add a table of both sides for that many seats."""
    trials = PackTrials(case, num_seats, case.new_pack())
    asked = prompts(case)
    if reason := trials.pack.generator.uncached_reason:
        report.note(f"{case.shape.name}: no cache, {reason}")
        return
    if answers(trials, asked, cached=True) != answers(trials, asked, cached=False):
        report.note(f"{case.shape.name}, {num_seats} seats: some answers differ where two tokens are near.")
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repetitions):
        for cached, found in times.items():

            def run(cached: bool = cached) -> Answers:
                return answers(trials, asked, cached=cached)

            found.append(_cost(run, case.device))
    count = num_seats * PROMPTS * NEW_TOKENS
    speeds = {cached: count / median(found) for cached, found in times.items()}
    report.table(
        f"{case.shape.name}, {num_seats} seats",
        ["keys and values", "new tokens per second"],
        [["kept", speeds[True]], ["computed again", speeds[False]]],
    )
    name = f"{case.shape.name}_seats{num_seats}"
    report.figure(f"tokens_per_second_kept_{name}", speeds[True])
    report.figure(f"tokens_per_second_again_{name}", speeds[False])
    report.figure(f"times_as_many_{name}", speeds[True] / speeds[False])


def _cost(run: Callable[[], Answers], device: torch.device) -> float:
    if device.type == "cuda":
        return seconds(run, device)
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Measure the demo's model on a CPU, one of 1B parameters on CUDA."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seats", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    device, dtype = this_device()
    shape = SHAPES["llama-3.2-1b" if device.type == "cuda" else "demo"]
    report = Report(
        "generation",
        f"{PROMPTS} prompts of {SHORTEST} to {LONGEST} tokens for every seat, {NEW_TOKENS} new tokens each, "
        "greedy; medians of interleaved repetitions. On a CPU seconds of processor time of all threads.",
    )
    case = Case(shape=shape, num_tokens=256, device=device, dtype=dtype, resident=True)
    for num_seats in [1] if options.quick else options.seats:
        compare(case, num_seats, 1 if options.quick else options.repetitions, report)
    report.finish(save=options.save)


if __name__ == "__main__":
    main()
